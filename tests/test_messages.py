"""Sizes of messages by hand, and the audit for raw samples."""

import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay import bank, messages
from ecogen_jax.relay.messages import Delivery, SyntheticSet, TeacherWeights

RNG = np.random.default_rng(0)


def pixels(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def synthetic(images, classes=10):
    return SyntheticSet(
        jnp.asarray(images), jnp.zeros((*images.shape[:-3], classes), jnp.float32)
    )


def weights(senders=()):
    variables = Variables(
        {"kernel": jnp.zeros((*senders, 3, 3, 1, 8)), "bias": jnp.zeros((*senders, 8))},
        {"norm": {"mean": jnp.zeros((*senders, 8)), "var": jnp.ones((*senders, 8))}},
    )
    return TeacherWeights(variables, jnp.zeros((*senders, 10), jnp.int32))


def test_bytes_of_a_teacher_by_hand():
    floats = 3 * 3 * 1 * 8 + 8 + 8 + 8
    assert messages.num_bytes(weights()) == 4 * floats + 4 * 10


def test_bytes_of_a_synthetic_set_by_hand():
    message = synthetic(pixels(5, 8, 6, 3))
    assert messages.num_bytes(message) == 5 * 8 * 6 * 3 + 4 * 5 * 10


@pytest.mark.parametrize("copies", [2, 6])
def test_a_delivery_counts_one_payload_a_copy(copies):
    delivery = Delivery("edge_end", "down", synthetic(pixels(2, 5, 4, 4, 1)), copies)
    assert delivery.num_bytes == copies * (5 * 4 * 4 + 4 * 5 * 10)


def test_a_delivery_of_teachers_counts_each_of_them():
    delivery = Delivery("cloud_edge", "up", weights(senders=(3,)), 3)
    assert delivery.num_bytes == 3 * messages.num_bytes(weights())


def test_fingerprints_tell_images_apart():
    images = pixels(6, 4, 4, 1)
    prints = messages.fingerprints(images)
    assert len(prints) == 6
    assert messages.fingerprints(np.concatenate([images, images])) == prints
    changed = images.copy()
    changed[2, 1, 3, 0] ^= 1
    assert len(messages.fingerprints(changed) & prints) == 5


def test_the_audit_counts_planted_raw_images():
    real, made = pixels(20, 4, 4, 1), pixels(8, 4, 4, 1)
    made[[1, 4, 5]] = real[[7, 0, 7]]
    found = messages.audit(synthetic(made), messages.fingerprints(real))
    assert found == 3


def test_the_audit_looks_into_the_set_of_every_sender():
    real, made = pixels(20, 4, 4, 1), pixels(2, 3, 4, 4, 1)
    made[0, 2], made[1, 0] = real[3], real[4]
    assert messages.audit(synthetic(made), messages.fingerprints(real)) == 2


def test_the_audit_finds_nothing_in_generated_images_or_weights():
    real = messages.fingerprints(pixels(20, 4, 4, 1))
    assert messages.audit(synthetic(pixels(8, 4, 4, 1)), real) == 0
    assert messages.audit(weights(), real) == 0


@pytest.mark.parametrize(
    "payload",
    [
        pixels(2, 4, 4, 1),
        {"images": pixels(2, 4, 4, 1)},
        (pixels(2, 4, 4, 1),),
        None,
        bank.empty(2, (4, 4, 1), 3),
        Variables({}, {}),
    ],
    ids=lambda payload: type(payload).__name__,
)
def test_nothing_but_a_message_may_cross(payload):
    name = type(payload).__name__
    allowed = "TeacherWeights, SyntheticSet"
    with pytest.raises(
        TypeError, match=f"a {name} may not cross a link; allowed: {allowed}"
    ):
        messages.audit(payload, set())


def test_raw_samples_cannot_hide_as_floats():
    real = pixels(3, 4, 4, 1)
    disguised = synthetic(real.astype(np.float32) / np.float32(255))
    with pytest.raises(TypeError, match="images are float32; allowed: uint8"):
        messages.audit(disguised, messages.fingerprints(real))
