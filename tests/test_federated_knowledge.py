"""FedDistill, FedGen and training alone, against their equations."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ecogen_jax.nets.latent import latent_generator
from ecogen_jax.relay.federated.base import Arrived
from ecogen_jax.relay.federated.feddistill import ByClass
from ecogen_jax.relay.federated.fedgen import (
    diversity,
    drawn_inputs,
    generator_objective,
    shared_cross_entropy,
)
from ecogen_jax.relay.federated.received import normalised
from ecogen_jax.relay.messages import num_bytes
from tests.toy_federation import (
    ACTIVE,
    CLASSES,
    FLOATS,
    HEAD_FLOATS,
    SIZES,
    assert_close,
    counts,
    distance,
    mixed,
    net,
    single,
    toy,
)

HERE = list(ACTIVE)
OVERHEAD = 8  # number and size of a message


def params(state):
    return state.server.variables.params


def one_step(cohort, number):
    """Every device does one step of its two."""
    del number
    shares = np.full(len(cohort.fault), 0.5, np.float32)
    return replace(cohort, members=replace(cohort.members, share=shares))


def test_feddistill_averages_logits_by_the_images_behind_them():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4, CLASSES, CLASSES)).astype(np.float32)
    told = np.array([[3, 0, 0], [1, 0, 2], [9, 9, 9], [0, 0, 2]], np.float32)
    rows[2] = np.nan  # of a device that was refused
    server = toy("feddistill").first.server
    known = ByClass(
        np.full((CLASSES, CLASSES), 5.0, np.float32), np.ones(3, np.float32)
    )
    arrived = Arrived(None, None, (), ByClass(rows, told), np.float32([8, 3, 0, 5]))
    merge = toy("feddistill").method.merge
    found = merge(replace(server, known=known), arrived, jax.random.key(0))[0].known
    assert found.logits[0] == pytest.approx((3 * rows[0, 0] + rows[1, 0]) / 4)
    assert found.logits[1] == pytest.approx(5.0)  # nobody told: as it was
    assert found.logits[2] == pytest.approx((rows[1, 2] + rows[3, 2]) / 2)
    assert found.counts.tolist() == [4.0, 1.0, 4.0]


def test_feddistill_learns_from_the_mean_logits_of_the_round_before():
    data, weight = single(), 0.1
    played = toy("feddistill").on(data)
    states, told = played.play(2, change=one_step)
    images = data.images[HERE, 0] / np.float32(255)
    labels = data.labels[HERE, 0]

    def logits(state):
        return np.stack(
            [
                net().apply(variables(state.own, d), image[None], train=True).value[0]
                for d, image in zip(HERE, images, strict=True)
            ]
        )

    def variables(own, device):
        return jax.tree.map(lambda a: jnp.asarray(a[device]), own)

    at_first = logits(states[0])
    for label in range(CLASSES):
        known = states[1].server.known.logits[label]
        wanted = at_first[labels == label]
        assert known == pytest.approx(wanted.mean(axis=0) if len(wanted) else 0.0)
    p = jax.nn.log_softmax(states[1].server.known.logits[labels])
    # Of the first step alone: the second is not done.
    q = jax.nn.log_softmax(logits(states[1]))
    wanted = weight * float(jnp.mean(jnp.sum(jnp.exp(p) * (p - q), -1)))
    assert told[0].metrics["distillation"] == 0.0
    assert told[1].metrics["distillation"] == pytest.approx(wanted, rel=1e-4)


def test_feddistill_sends_one_number_for_each_pair_of_classes():
    table, (_, (told,)) = 4 * (CLASSES**2 + CLASSES), toy("feddistill").play(1)
    assert num_bytes(told.down) == table
    assert num_bytes(told.up) == table + OVERHEAD
    assert toy("feddistill").stage.student == "end"


def test_who_trains_alone_sends_nothing():
    played = toy("alone")
    assert played.stage.deliveries(played.parties) == []
    assert played.stage.together.link_bytes(0) == (0, 0)


def test_diversity_of_fedgen_by_hand():
    noise = jnp.array([[0.0, 1.0], [1.0, 1.0]])
    features = jnp.array([[1.0, 2.0, 3.0], [2.0, 2.0, 1.0]])
    # Two of four pairs differ: by (1 + 0) / 2 squared, and by (1 + 0 + 2) / 3.
    assert diversity(noise, features) == pytest.approx(np.exp(-2 / 4 * 0.5 * 1))


def test_fedgen_weights_devices_by_their_share_of_the_class():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 5, CLASSES)).astype(np.float32)
    labels = np.array([0, 2, 1, 1, 0], np.int32)
    told = np.array([[6.0, 0.0, 1.0], [2.0, 0.0, 1.0], [0.0, 0.0, 0.0]], np.float32)
    share = normalised(jnp.asarray(told))
    assert share.tolist() == [[0.75, 0, 0.5], [0.25, 0, 0.5], [0, 0, 0]]
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = -np.mean(
        [
            sum(share[k, y] * log_p[k, i, y] for k in range(3))
            for i, y in enumerate(labels)
        ]
    )
    weights = jnp.asarray(share)[:, labels]
    found = shared_cross_entropy(jnp.asarray(logits), jnp.asarray(labels), weights)
    assert found == pytest.approx(wanted, rel=1e-5)


def test_the_gradient_of_the_generator_by_finite_differences():
    played = generating()
    learner = played.first.server.extra
    heads = jax.tree.map(
        lambda leaf: jax.random.normal(jax.random.key(1), (4, *leaf.shape)),
        {"classifier": params(played.first)["classifier"]},
    )
    share = normalised(jnp.asarray(counts(mixed())[HERE], jnp.float32))

    maker = latent_generator(features=5, num_classes=CLASSES, noise_size=3)
    objective = generator_objective(maker)
    labels, noise = drawn_inputs(
        jax.random.key(2), batch_size=4, num_classes=CLASSES, noise_size=3
    )

    def loss(represent):
        generator = {**learner.generator.params, "represent": represent}
        stats = learner.generator.stats
        return objective(generator, stats, heads, share, labels, noise)[0]

    represent = jax.tree.map(jnp.asarray, learner.generator.params["represent"])
    check_grads(loss, (represent,), order=1, modes=["rev"], eps=1e-3, rtol=1e-2)


def generating():
    return toy("fedgen", norm=True, statistics="own")


def test_fedgen_lets_devices_learn_from_the_generator_after_the_first_round():
    _, told = generating().play(3)
    for term in ("generated", "distillation"):
        assert told[0].metrics[term] == 0.0
        assert told[1].metrics[term] > 0.0


def test_the_first_round_of_fedgen_is_fedavg():
    plain = toy("fedavg", norm=True, statistics="own")
    found, wanted = (each.play(1)[0][1] for each in (generating(), plain))
    assert_close(found.server.variables, wanted.server.variables, rtol=1e-5)
    assert distance(found.server.extra, generating().first.server.extra) > 0.0


@pytest.mark.parametrize(("share", "floats"), [("all", FLOATS), ("head", HEAD_FLOATS)])
def test_fedgen_sends_layers_and_generator_down_and_counts_up(share, floats):
    _, (told,) = toy("fedgen", share=share).play(1)
    features, noise, hidden = 5, 3, 256
    dense = (noise + CLASSES + 1) * hidden
    norm, last = 4 * hidden, (hidden + 1) * features
    assert num_bytes(told.down) == 4 * (floats + dense + norm + last)
    assert num_bytes(told.up) == 4 * (floats + CLASSES) + OVERHEAD


def test_fedgen_keeps_statistics_on_their_device():
    states, (told,) = generating().play(1)
    assert not told.down.payload.net.stats
    means = states[1].own.stats["norm"]["mean"]
    assert distance(means[0], means[1]) > 1e-3
    wanted = np.average(means[HERE], axis=0, weights=SIZES[HERE])
    cloud = states[1].server.variables.stats["norm"]["mean"]
    assert cloud == pytest.approx(wanted, rel=1e-5, abs=1e-6)
