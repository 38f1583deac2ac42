"""What the server of `relay_rounds` remembers, teaches and serves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import keys
from ecogen_jax.config_federated import defaults
from ecogen_jax.nets.latent import HEAD, head
from ecogen_jax.relay.federated.base import Arrived
from ecogen_jax.relay.federated.fedgen import feature_maker
from ecogen_jax.relay.federated.received import Facts
from ecogen_jax.relay.federated.relay_rounds import (
    SETTLING,
    Last,
    Past,
    last_layer_hop,
    of_all,
    relay_rounds,
    remembered,
)
from ecogen_jax.relay.federated.sharing import Sharing, possible, sharing
from tests.test_federated_server import task
from tests.toy_federation import ACTIVE, CLASSES, SHAPE, SIZES, distance, net, toy

OPTIONS = {
    **defaults()["relay_rounds"],
    "steps": 2,
    "noise_size": 3,
    "hop_steps": 200,
    "hop_batch_size": 32,
    "hop_learning_rate": 0.05,
    "server_learning_rate": 1.5,
}
KEY = jax.random.key(3)
DEVICES = 3
SHARED = Sharing(head_only=False, keeps_statistics=False)


def close(one, other):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, other
    )


def given(*, norm=False, share="all", keeps_statistics=False, **options):
    """A task in which `DEVICES` of five devices are heard in a round."""
    return task(
        "relay_rounds",
        net=net(norm=norm),
        share=share,
        keeps_statistics=keeps_statistics,
        shape=SHAPE,
        num_classes=CLASSES,
        num_devices=5,
        active=DEVICES,
        options={**OPTIONS, **options},
    )


def heard(server, device, weights, seed, known, part=SHARED):
    """Made-up messages; those of weight 0 are NaN.

    Args:
      server: of which state.
      device: who is heard.
      weights: of each.
      seed: of the numbers.
      known: what the server remembers of all devices, `[devices, ...]`.
      part: which part of the net is sent.
    """
    rng, weights = np.random.default_rng(seed), jnp.array(weights)

    def made(leaf):
        values = rng.normal(size=(DEVICES, *leaf.shape)).astype(np.float32)
        return jnp.asarray(values).at[weights == 0].set(jnp.nan)

    updates, statistics = (
        jax.tree.map(made, sent(server.variables)) for sent in (part.shared, part.facts)
    )
    counts = rng.integers(1, 9, (DEVICES, CLASSES)).astype(np.float32)
    device = jnp.array(device, jnp.int32)
    facts = Facts(statistics, jnp.asarray(counts))
    known = jax.tree.map(lambda leaf: leaf[device], known)
    return Arrived(device, device, updates, facts, weights, known=known)


def nobody(method):
    """What the server remembers of all devices at first."""
    return jax.tree.map(
        lambda leaf: jnp.zeros((5, *leaf.shape), leaf.dtype), method.known(KEY)
    )


def test_the_last_change_of_each_device_is_kept_and_that_of_a_refused_is_not():
    known = Last({"w": jnp.array([[3.0], [1], [2]])}, jnp.array([0.0, 1, 2]))
    sent = {"w": jnp.array([[10.0], [jnp.nan], [30.0]])}
    device, weights = jnp.array([3, 1, 2], jnp.int32), jnp.array([7.0, 0, 9])
    arrived = Arrived(device, device, sent, (), weights, known=known)
    after = remembered(arrived)
    assert after.change["w"].ravel().tolist() == [10, 1, 30]
    assert after.weight.tolist() == [7, 1, 9]
    # Another device has sent 4 for 4 images, those of this round 1 for 1 and 2 for 2.
    whole = of_all(Past({"w": jnp.array([16.0 + 1 + 4])}, jnp.float32(7)), arrived)
    assert whole.change["w"].tolist() == [16 + 1 + 9 * 30 + 7 * 10]
    assert whole.weight == 4 + 1 + 9 + 7


def taught(share, seed=0):
    """A last layer before and after the hop, and how far it is from the devices'."""
    maker = feature_maker(given())
    generator = maker.init(KEY)
    start = net().init(KEY).params[HEAD]
    heads = jax.tree.map(
        lambda leaf: jax.random.normal(jax.random.key(seed), (DEVICES, *leaf.shape)),
        {HEAD: start},
    )
    last, losses = jax.jit(last_layer_hop(given()))(start, heads, share, generator, KEY)
    return start, last, heads, losses, (maker, generator)


def test_the_last_layer_learns_what_the_devices_answer_on_their_classes():
    # Each device is asked about classes of its own.
    owner = np.arange(CLASSES) % DEVICES
    share = jnp.asarray(np.eye(DEVICES, dtype=np.float32)[owner].T)
    start, last, heads, losses, (maker, generator) = taught(share)
    labels = jnp.arange(CLASSES * 20, dtype=jnp.int32) % CLASSES
    noise = jax.random.uniform(jax.random.key(9), (len(labels), OPTIONS["noise_size"]))
    features = maker.apply(generator, noise, labels, train=False).value
    answers = jax.nn.softmax(jax.vmap(lambda one: head(one, features))(heads))
    target = answers[owner[np.asarray(labels)], np.arange(len(labels))]

    def apart(one):
        return float(
            jnp.abs(jax.nn.softmax(head({HEAD: one}, features)) - target).mean()
        )

    assert losses.shape == (OPTIONS["hop_steps"],)
    assert losses[-20:].mean() < losses[:20].mean()
    assert apart(last) < 0.5 * apart(start)


def test_nobody_teaches_where_nobody_has_a_class():
    start, last, *_ = taught(jnp.zeros((DEVICES, CLASSES)))
    close(start, last)


def test_the_first_round_is_that_of_fedgen_and_is_served_as_it_is():
    # Nothing is past yet; the toy's hop steps are as small as rounding.
    ours, theirs = toy("relay_rounds").play(1)[0][-1], toy("fedgen").play(1)[0][-1]
    close(ours.server.variables.params, theirs.server.variables.params)
    close(ours.server.extra.served.params, ours.server.variables.params)
    sent = np.flatnonzero(ours.known.weight)
    assert sent.tolist() == list(ACTIVE)
    assert ours.server.extra.past.weight == ours.known.weight.sum() == SIZES[sent].sum()


def test_later_rounds_lean_on_the_past_by_their_number():
    played = toy("relay_rounds")
    _, first, second = played.play(2)[0]
    ema = defaults()["relay_rounds"]["ema"]
    past = ema / (1.0 + SETTLING)
    wanted = jax.tree.map(
        lambda old, new: past * old + (1 - past) * new,
        first.server.extra.served.params,
        second.server.variables.params,
    )
    close(second.server.extra.served.params, wanted)


@pytest.mark.parametrize(
    ("share", "keeps"), [("all", False), ("all", True), ("head", False)]
)
def test_the_net_moves_by_the_last_changes_of_all_devices_too(share, keeps):
    # Device 2 is refused at first, device 1 is heard twice, devices 0 and 3 once.
    setting = given(
        norm=True,
        share=share,
        keeps_statistics=keeps,
        hop_steps=2,
        hop_learning_rate=1e-7,
    )
    method, part = relay_rounds(setting), sharing(setting)
    merge, server, known = jax.jit(method.merge), method.init(KEY), nobody(method)
    first = heard(server, [0, 1, 2], [8.0, 3, 0], 0, known, part)
    known = jax.tree.map(
        lambda every, some: every.at[first.device].set(some),
        known,
        method.remember(first),
    )
    second = heard(server, [1, 2, 3], [3.0, 5, 2], 1, known, part)
    before, _ = merge(server, first, KEY)
    after, _ = merge(before, second, KEY)
    past = 1 / (1 + SETTLING)

    def of_round(new):
        return (3 * new[0] + 5 * new[1] + 2 * new[2]) / 10

    def change(old, new):
        of_all = (8 * old[0] + 3 * new[0] + 5 * new[1] + 2 * new[2]) / 18
        return (1 - past) * of_round(new) + past * of_all

    updates = first.updates, second.updates
    moved = jax.tree.map(
        lambda net, *sent: net + OPTIONS["server_learning_rate"] * change(*sent),
        part.shared(before.variables).params,
        *(sent.params for sent in updates),
    )
    close(after.variables.params, {**before.variables.params, **moved})
    # Running statistics are averaged, whatever the server's step is.
    if keeps:
        wanted = jax.tree.map(of_round, second.facts.stats)
    elif share == "head":
        wanted = server.variables.stats
    else:
        wanted = jax.tree.map(
            lambda net, *sent: net + change(*sent),
            before.variables.stats,
            *(sent.stats for sent in updates),
        )
        wanted = possible(wanted)
    assert jax.tree.leaves(wanted)
    close(after.variables.stats, wanted)


def test_a_config_from_before_the_servers_step_means_a_step_of_one():
    # Such a run is resumed with the default of the field that it lacks.
    assert defaults()["relay_rounds"]["server_learning_rate"] == 1


def test_the_hop_goes_on_from_the_moved_net_with_all_last_layers():
    setting = given(hop_steps=20)
    method = relay_rounds(setting)
    server = method.init(KEY)
    found = heard(server, [0, 1, 3], [3.0, 1, 4], 2, nobody(method))
    after, metrics = jax.jit(method.merge)(server, found, KEY)
    start, changes = server.variables.params, found.updates.params
    step = OPTIONS["server_learning_rate"]
    moved = jax.tree.map(
        lambda net, new: net + step * (3 * new[0] + new[1] + 4 * new[2]) / 8,
        start,
        changes,
    )
    heads = jax.tree.map(
        lambda net, new: net[None] + new, {HEAD: start[HEAD]}, {HEAD: changes[HEAD]}
    )
    counts, generator = found.facts.counts, after.extra.learner.generator
    share = counts / counts.sum(axis=0, keepdims=True)
    last, losses = jax.jit(last_layer_hop(setting))(
        moved[HEAD], heads, share, generator, keys.stream(KEY, "hop")
    )
    assert distance(last, moved[HEAD]) > 0.1
    close(after.variables.params, {**moved, HEAD: last})
    close(after.extra.served.params, {**moved, HEAD: last})
    close(metrics["distillation"], losses)


@pytest.mark.parametrize("tier", ["cloud", "device"])
def test_all_answer_with_the_average_and_train_from_the_net(tier):
    played = toy("relay_rounds")
    state = played.play(3)[0][-1]
    server, method = state.server, played.method
    sent = method.send(server, jnp.int32(0))
    close(sent.lesson.net.params, server.variables.params)
    own = jax.tree.map(lambda leaf: leaf[0], state.own)
    answers = method.cloud(server) if tier == "cloud" else method.device(sent, own)
    close(answers.params, server.extra.served.params)
