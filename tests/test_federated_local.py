"""The steps of a device: what is computed ahead of them, and what a straggler tells."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import keys
from ecogen_jax.relay.federated.base import Local, Member
from ecogen_jax.relay.federated.local import Loss, local_training, ordered
from ecogen_jax.relay.learn import Data
from tests.toy_federation import net
from tests.toy_nets import CLASSES, SHAPE

IMAGES, STEPS, BATCH = 7, 5, 4
KEY = jax.random.key(3)


def member():
    """A device with images of several classes, and three of padding."""
    rng = np.random.default_rng(0)
    data = Data(
        jnp.asarray(rng.integers(0, 256, (IMAGES + 3, *SHAPE)), jnp.uint8),
        jnp.asarray(rng.integers(0, CLASSES, IMAGES + 3), jnp.int32),
        jnp.int32(IMAGES),
    )
    counts = jnp.ones(CLASSES)
    number = jnp.int32(2)
    one = Member(jnp.int32(0), jnp.int32(0), data, counts, jnp.float32(1), number)
    return ordered(one, KEY)


def code(labels):
    """Labels of a batch in one number."""
    return jnp.sum(labels * CLASSES ** jnp.arange(BATCH)).astype(jnp.float32)


def trained(ahead):
    """Trains, and returns what each step was given: its labels, and what was ready."""
    local = Local(STEPS, BATCH, 0.1, 1.0, 0.0, stragglers=False)

    def loss(params, output, labels, guide, ready):
        del output, guide
        square = jnp.sum(jnp.square(params["classifier"]["bias"]))
        given = {"labels": code(labels), "ready": ready}
        return Loss({"square": square} | jax.lax.stop_gradient(given))

    train = local_training(net(), local, loss=loss, ahead=ahead)
    found = jax.jit(train)(net().init(KEY), member(), jnp.float32(8.0), KEY)
    return jax.device_get(found.metrics)


def test_labels_and_guide_are_those_of_the_step():
    told = trained(lambda labels, guide, key: code(labels) + guide)
    assert len(set(told["labels"])) > 1
    np.testing.assert_array_equal(told["ready"], told["labels"] + 8.0)


def test_the_loss_of_a_straggler_is_the_mean_over_the_steps_that_it_did():
    local = Local(STEPS, BATCH, 0.1, 1.0, 0.0, stragglers=True)

    def found(share):
        train = local_training(net(), local)
        one = replace(member(), share=jnp.float32(share))
        result = jax.jit(train)(net().init(KEY), one, None, KEY)
        return result.metrics["cross_entropy"]

    straight, slow = found(1.0), found(1 / STEPS)
    assert len(set(straight.tolist())) == STEPS
    assert float(slow.mean()) == pytest.approx(float(straight[0]))


def test_each_step_has_a_key_of_its_own():
    told = trained(lambda labels, guide, key: jax.random.uniform(key))
    wanted = [
        jax.random.uniform(keys.stream(each, "loss"))
        for each in jax.random.split(KEY, STEPS)
    ]
    np.testing.assert_array_equal(told["ready"], np.array(wanted))


def test_steps_go_through_the_order_and_start_again_at_its_end():
    told, one = trained(lambda labels, guide, key: jnp.float32(0)), member()
    order = np.asarray(one.order)[:IMAGES]
    assert sorted(order) == list(range(IMAGES))
    places = np.arange(STEPS * BATCH).reshape(STEPS, BATCH) % IMAGES
    wanted = [code(each) for each in np.asarray(one.data.labels)[order[places]]]
    np.testing.assert_array_equal(told["labels"], np.array(wanted))
