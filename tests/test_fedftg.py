"""The server's two updates in a round of FedFTG, against their equations."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ecogen_jax import keys
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.federated.base import Arrived, Task
from ecogen_jax.relay.federated.fedavg import Server
from ecogen_jax.relay.federated.fedftg import asked, fedftg, hard_terms
from ecogen_jax.relay.federated.fedgen import Facts, diversity
from tests import toy_nets
from tests.test_federated_server import ACTIVE, NET, OPTIONS, differ, run, task
from tests.toy_nets import CLASSES, LATENT

COUNTS = np.array([[9, 0, 1], [1, 6, 1], [0, 2, 8]], np.float32)
SHARES = COUNTS / COUNTS.sum(axis=0)
KEY = jax.random.key(3)


class Round(NamedTuple):
    """A round of made-up messages.

    Attributes:
      given: the task.
      devices: the nets of the devices, `[active, ...]`.
      average: of them.
      before: the server.
      after: the server after the round.
    """

    given: Task
    devices: Variables
    average: Variables
    before: Server
    after: Server


def played(**options: Any) -> Round:
    """A round of devices that have as many images as each other."""
    given = task("fedftg", options={**OPTIONS["fedftg"], **options})
    method, rng = fedftg(given), np.random.default_rng(0)
    before = method.init(KEY)

    def made(leaf):
        values = 2 * rng.normal(size=(ACTIVE, *leaf.shape))
        return jnp.asarray(values.astype(np.float32))

    sent, updates = before.variables, jax.tree.map(made, before.variables.params)
    params = jax.tree.map(lambda net, new: net[None] + new, sent.params, updates)
    stats = jax.tree.map(lambda leaf: jnp.stack([leaf] * ACTIVE), sent.stats)
    devices = Variables(params, stats)
    facts, weights = Facts(stats, jnp.asarray(COUNTS)), jnp.ones(ACTIVE)
    arrived = Arrived((), (), Variables(updates, {}), facts, weights)
    after, _ = jax.jit(method.merge)(before, arrived, KEY)
    average = jax.tree.map(lambda leaf: leaf.mean(axis=0), devices)
    return Round(given, devices, average, before, after)


def logits(net, images):
    return NET.apply(net, images, train=False).value


def of_devices(nets, images):
    return jax.vmap(lambda one: logits(one, images))(nets)


def made_by(params, noise, labels):
    made = toy_nets.generator().apply(Variables(params, {}), noise, labels, train=True)
    return made.value


def test_the_student_learns_what_devices_answer_by_their_shares_of_a_class():
    # The generator stands still, so that we can ask about images like those of the hop.
    still = {"generator_learning_rate": 0.0, "learning_rate": 0.05}
    found = played(steps=100, student_steps=2, batch_size=24, **still)
    labels = jnp.arange(60, dtype=jnp.int32) % CLASSES
    noise = jax.random.normal(jax.random.key(9), (60, LATENT))
    images = made_by(found.after.extra.generator.params, noise, labels)
    answers = jax.nn.softmax(of_devices(found.devices, images))
    wanted = jnp.sum(jnp.asarray(SHARES)[:, labels, None] * answers, axis=0)

    def apart(net, target):
        return float(jnp.abs(jax.nn.softmax(logits(net, images)) - target).mean())

    student, alike = found.after.variables, answers.mean(axis=0)
    assert apart(student, wanted) < 0.3 * apart(found.average, wanted)
    assert apart(student, wanted) < 0.3 * apart(student, alike)


def test_the_generator_descends_the_weighted_sum_of_its_terms():
    found = played(steps=1, cross_entropy=0.5, diversity=3.0)
    key = jax.random.split(keys.stream(KEY, "tuning"), 1)[0]
    labels, noise = asked(found.given, jnp.asarray(COUNTS.sum(axis=0)), key)

    def loss(params):
        images = made_by(params, noise, labels)
        terms = hard_terms(
            of_devices(found.devices, images),
            logits(found.average, images),
            labels,
            jnp.asarray(SHARES)[:, labels],
        )
        unlike = diversity(noise, images.reshape(len(labels), -1))
        return terms["adversarial"] + 0.5 * terms["cross_entropy"] + 3.0 * unlike

    gradient = jax.grad(loss)(found.before.extra.generator.params)
    # Adam's first mean of gradients is a tenth of the first gradient.
    mean = optax.tree.get(found.after.extra.optimizer, "mu")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        jax.tree.map(lambda leaf: 10 * leaf, mean),
        gradient,
    )


def test_fedftg_asks_for_classes_as_often_as_devices_have_them():
    given = task("fedftg", options={**OPTIONS["fedftg"], "batch_size": 4000})
    labels, noise = asked(given, jnp.array([3.0, 0, 1]), jax.random.key(0))
    drawn = np.bincount(labels, minlength=CLASSES) / 4000
    np.testing.assert_allclose(drawn, [0.75, 0, 0.25], atol=0.03)
    assert drawn[1] == 0
    np.testing.assert_allclose((noise.mean(), noise.std()), (0, 1), atol=0.03)


def test_fedftg_keeps_its_generator():
    one, _ = run("fedftg").rounds(number=1)
    two, _ = run("fedftg").rounds(number=2)
    before = run("fedftg").first.server.extra.generator
    assert differ(before, one.server.extra.generator)
    assert differ(one.server.extra.generator, two.server.extra.generator)


def test_the_student_learns_from_the_generator_after_its_step():
    found = played(steps=1, student_steps=1, generator_learning_rate=1.0)
    key = jax.random.split(keys.stream(KEY, "tuning"), 1)[0]
    labels, noise = asked(found.given, jnp.asarray(COUNTS.sum(axis=0)), key)

    def gradient(generator):
        images = made_by(generator.params, noise, labels)
        answers = jax.nn.softmax(of_devices(found.devices, images))
        target = jnp.sum(jnp.asarray(SHARES)[:, labels, None] * answers, axis=0)

        def loss(params):
            guess = logits(Variables(params, found.average.stats), images)
            return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(guess), axis=-1))

        return jax.grad(loss)(found.average.params)

    # The first step of Adam goes by the sign of the gradient.
    moved = jax.tree.map(
        lambda a, b: np.sign(b - a),
        found.average.params,
        found.after.variables.params,
    )

    def alike(generator):
        wanted = jax.tree.map(lambda slope: -np.sign(slope), gradient(generator))
        pairs = zip(jax.tree.leaves(moved), jax.tree.leaves(wanted), strict=True)
        return np.concatenate([(a == b).ravel() for a, b in pairs]).mean()

    assert alike(found.after.extra.generator) > 0.97
    assert alike(found.before.extra.generator) < 0.97
