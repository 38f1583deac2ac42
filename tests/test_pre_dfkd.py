"""PRE-DFKD: the memory, and what the student is taught on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import keys, losses
from ecogen_jax.nets.encoder import HIDDEN, encoder
from ecogen_jax.nets.functional import num_params
from ecogen_jax.relay.distillers import pre_dfkd
from ecogen_jax.relay.distillers.base import Weights
from ecogen_jax.relay.distillers.engine import Made
from ecogen_jax.relay.distillers.labels import draw_labels
from tests import toy_hop
from tests.toy_hop import BATCH, CLASSES, STUDENT, TEACHER, begin, build, one_step

NAME = "pre_dfkd"
WEIGHTS = Weights(one_hot=1.0, activation=0.1, balance=2.0, adversarial=0.5)


def equal(one, other):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


def test_the_divergence_from_the_normal_distribution_in_closed_form():
    mean = jnp.array([[0.0, 0.0], [1.0, -2.0]])
    log_variance = jnp.array([[0.0, 0.0], [0.0, np.log(4.0)]])
    first = losses.normal_divergence(mean[:1], log_variance[:1])
    assert first == 0.0
    second = 0.5 * (1.0 + 4.0 + 4.0 - 1.0 - np.log(4.0))
    value = losses.normal_divergence(mean, log_variance)
    np.testing.assert_allclose(value, second / 2, rtol=1e-6)
    gradients = jax.grad(losses.normal_divergence, argnums=(0, 1))(mean, log_variance)
    # d/dmu is mu, d/dlog sigma^2 is (sigma^2 - 1) / 2, over a batch of two.
    np.testing.assert_allclose(gradients[0], mean / 2)
    expected = (jnp.exp(log_variance) - 1.0) / 4
    np.testing.assert_allclose(gradients[1], expected, rtol=1e-6)


def test_the_encoder_gives_means_and_logarithms_of_variances():
    net = encoder(shape=toy_hop.SHAPE, latent_size=3)
    output = net.apply(net.init(jax.random.key(0)), jnp.zeros((5, 8, 8, 1)), train=True)
    assert output.value.shape == (5, 6)
    assert output.activations == ()
    assert num_params(net) == (64 + 1) * HIDDEN + (HIDDEN + 1) * 6


def test_the_memory_learns_and_is_not_the_generator():
    received, distiller = toy_hop.teachers(), build(NAME, WEIGHTS)
    state = begin(distiller, received)
    assert not equal(state.extra.decoder.params, state.generator.params)
    after, metrics, _ = one_step(distiller, state, received)
    assert not equal(after.extra.encoder.params, state.extra.encoder.params)
    assert not equal(after.extra.decoder.params, state.extra.decoder.params)
    assert metrics["memory"] > 0.0


def class_patterns(received):
    """Among random images, the one in which the teacher is surest of each class."""
    images = jax.random.bernoulli(jax.random.key(4), 0.5, (400, *toy_hop.SHAPE))
    images = images.astype(jnp.float32)
    answers = toy_hop.logits(TEACHER, toy_hop.only(received), images)
    return images[jnp.argmax(jax.nn.log_softmax(answers), axis=0)]


def memorised(hop, received, memory, *, steps):
    """A memory after as many batches of one pattern a class, and its losses."""
    net = encoder(shape=toy_hop.SHAPE, latent_size=toy_hop.LATENT)
    images = jnp.tile(class_patterns(received), (BATCH // CLASSES, 1, 1, 1))
    made = Made(images, jnp.zeros(BATCH, jnp.int32), jnp.zeros((1, CLASSES)), {}, None)

    def step(memory, key):
        return pre_dfkd.memorise(hop, net, memory, received, made, key)

    step_keys = jax.random.split(jax.random.key(2), steps)
    return jax.jit(lambda m: jax.lax.scan(step, m, step_keys))(memory)


def replayed_classes(hop, received, memory):
    """The classes that are replayed, and those that the teacher then sees."""
    drawn, seen = [], []
    for seed in range(40):
        key = jax.random.key(seed)
        images = pre_dfkd.replayed(hop, memory, received, key)
        assert len(images) == BATCH // pre_dfkd.REPLAY_SHARE
        labels = keys.stream(keys.stream(key, "replay"), "labels")
        drawn += draw_labels(labels, received.weights, len(images)).tolist()
        answers = toy_hop.logits(TEACHER, toy_hop.only(received), images)
        seen += np.argmax(answers, axis=-1).tolist()
    return np.array(drawn), np.array(seen)


def test_the_memory_replays_the_classes_that_it_has_seen(monkeypatch):
    # So few numbers as these need a larger weight to be normally distributed.
    monkeypatch.setattr(pre_dfkd, "DIVERGENCE_WEIGHT", 0.1)
    received, sizes = toy_hop.teachers(), {"learning_rate": 0.4}
    hop = toy_hop.hop(WEIGHTS, **sizes)
    before = begin(build(NAME, WEIGHTS, **sizes), received).extra
    after, values = memorised(hop, received, before, steps=300)
    assert values[-10:].mean() < 0.4 * values[0]
    drawn, seen = replayed_classes(hop, received, before)
    assert np.mean(drawn == seen) < 0.35
    drawn, seen = replayed_classes(hop, received, after)
    assert np.mean(drawn == seen) > 0.5
    assert set(seen) == set(range(CLASSES))


def test_the_student_sees_new_and_replayed_images_in_one_batch():
    sizes = []

    def apply(variables, *inputs, train):
        if train:
            sizes.append(inputs[0].shape[0])
        return STUDENT.apply(variables, *inputs, train=train)

    spy = STUDENT._replace(apply=apply)
    received = toy_hop.teachers()
    distiller = build(NAME, WEIGHTS, student=spy, steps=2)
    one_step(distiller, begin(distiller, received), received)
    assert set(sizes) == {BATCH + BATCH // pre_dfkd.REPLAY_SHARE}


def test_the_student_learns_from_the_logits_and_from_the_memory_too():
    received, distiller = toy_hop.teachers(), build(NAME, WEIGHTS)
    state = begin(distiller, received)
    _, metrics, _ = one_step(distiller, state, received)
    other = begin(distiller, received, seed=9).extra
    _, changed, _ = one_step(
        distiller, dataclasses.replace(state, extra=other), received
    )
    assert metrics["adversarial"] == changed["adversarial"]
    assert metrics["distillation"] != changed["distillation"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_a_short_hop_teaches_the_student(number):
    received = toy_hop.teachers(number)
    distiller = build(NAME, WEIGHTS, steps=3, learning_rate=4e-3)
    state = begin(distiller, received)
    step_keys = jax.random.split(jax.random.key(1), 100)
    after, metrics = toy_hop.run(distiller.step, state, received, step_keys)
    assert all(np.isfinite(value).all() for value in metrics.values())
    values = np.asarray(metrics["distillation"])
    assert values[-10:].mean() < 0.6 * values[0]
    labels = np.asarray(after.bank.labels)
    np.testing.assert_array_equal(labels, np.argmax(after.bank.logits, -1))
