"""Sizes of messages by hand, and the audit for raw samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay import bank, messages
from ecogen_jax.relay.messages import Delivery, GeneratorAndStudent, TeacherWeights

RNG = np.random.default_rng(0)
SHAPE, SIZE = (4, 4, 1), 16
COUNTS = jnp.ones(10, jnp.int32)


def pixels(*leading):
    return RNG.integers(0, 256, (*leading, *SHAPE), dtype=np.uint8)


def net(*senders, width=8):
    """Variables of 9 width + 3 width floats for each sender."""

    def draw(*shape):
        values = RNG.normal(size=(*senders, *shape))
        return jnp.asarray(values, jnp.float32)

    return Variables(
        {"kernel": draw(3, 3, 1, width), "bias": draw(width)},
        {"norm": {"mean": draw(width), "var": draw(width)}},
    )


def teacher(*senders):
    return TeacherWeights(net(*senders), jnp.ones((*senders, 10), jnp.int32))


def holding(images):
    """A teacher in whose parameters somebody has put images."""
    return TeacherWeights(Variables({"kernel": jnp.asarray(images)}, {}), COUNTS)


def test_bytes_of_a_teacher_by_hand():
    assert messages.num_bytes(teacher()) == 4 * (9 * 8 + 3 * 8) + 4 * 10


def test_bytes_of_a_generator_with_student_by_hand():
    message = GeneratorAndStudent(net(width=5), net(width=2), COUNTS)
    assert messages.num_bytes(message) == 4 * 12 * 5 + 4 * 12 * 2 + 4 * 10


def test_bytes_follow_the_type_of_each_array():
    message = holding(np.zeros((3, *SHAPE), np.uint8))
    assert messages.num_bytes(message) == 3 * SIZE + 4 * 10


@pytest.mark.parametrize("copies", [2, 6])
def test_a_delivery_counts_one_payload_a_copy(copies):
    delivery = Delivery("edge_end", "down", teacher(2), copies)
    assert delivery.num_bytes == copies * (4 * 12 * 8 + 4 * 10)


def test_bytes_are_added_by_link_and_direction():
    one = messages.num_bytes(teacher())
    deliveries = [
        Delivery("edge_end", "down", teacher(1), 3),
        Delivery("edge_end", "up", teacher(4), 4),
        Delivery("edge_end", "down", teacher(2), 2),
        Delivery("cloud_edge", "up", teacher(2), 2),
    ]
    assert messages.bytes_by_link(deliveries) == {
        "edge_end": (4 * one, 5 * one),
        "cloud_edge": (2 * one, 0),
    }


def test_what_goes_one_way_crosses_side_by_side_and_round_after_round():
    deliveries = [
        Delivery("edge_end", "down", teacher(1), 30, 3),
        Delivery("edge_end", "up", teacher(4), 4, 2),
        Delivery("edge_end", "up", teacher(2), 2),
        Delivery("cloud_edge", "up", teacher(2), 2),
        Delivery("cloud_edge", "down", teacher(2), 0, 7),  # nobody came
    ]
    found = messages.crossings_by_link(deliveries)
    assert found == {"edge_end": 3 + 2, "cloud_edge": 1}


def test_fingerprints_tell_images_apart():
    images = pixels(6)
    prints = messages.fingerprints(images)
    assert len(prints) == 6
    assert messages.fingerprints(np.concatenate([images, images])) == prints
    changed = images.copy()
    changed[2, 1, 3, 0] ^= 1
    assert len(messages.fingerprints(changed) & prints) == 5


@pytest.mark.parametrize("leading", [(8,), (2, 4)], ids=["one", "two_senders"])
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int32", "float32", "float16", "bfloat16"]
)
def test_the_audit_counts_planted_raw_images(leading, dtype):
    real, made = pixels(20), pixels(8)
    made[[1, 4, 5]] = real[[7, 0, 7]]
    carried = made.reshape(*leading, *SHAPE)
    if "float" in dtype:
        carried = carried.astype(np.float32) / np.float32(255)
    carried = carried.astype(jnp.dtype(dtype))  # to int8 the same bits
    if carried.dtype.itemsize > 1:  # what no image has, beside them
        carried.reshape(8, -1)[2:4, 0] = -1, 300
    found = messages.audit(holding(carried), messages.fingerprints(real), SIZE)
    assert found == 3


def test_the_audit_looks_into_every_part_of_a_message():
    real = pixels(5)
    raw = Variables({}, {"mean": jnp.asarray(real[:2])})
    prints = messages.fingerprints(real)
    for message in (
        TeacherWeights(raw, COUNTS),
        GeneratorAndStudent(raw, net(), COUNTS),
        GeneratorAndStudent(net(), raw, COUNTS),
        GeneratorAndStudent(net(), net(), jnp.asarray(real[:2])),
        TeacherWeights(net(), jnp.asarray(real[:2])),
    ):
        assert messages.audit(message, prints, SIZE) == 2


def test_the_audit_finds_nothing_in_generated_images_or_nets():
    real = messages.fingerprints(pixels(20))
    for message in (
        holding(pixels(8)),
        holding(pixels(8).astype(np.float32) / np.float32(255)),
        teacher(2),
        GeneratorAndStudent(net(), net(), COUNTS),
    ):
        assert messages.audit(message, real, SIZE) == 0


@pytest.mark.parametrize(
    "payload",
    [
        pixels(2),
        {"images": pixels(2)},
        (pixels(2),),
        None,
        bank.empty(2, SHAPE, 3),
        Variables({}, {}),
    ],
    ids=lambda payload: type(payload).__name__,
)
def test_nothing_but_a_message_may_cross(payload):
    name = type(payload).__name__
    allowed = ", ".join(kind.__name__ for kind in messages.MESSAGE_TYPES)
    with pytest.raises(
        TypeError, match=f"a {name} may not cross a link; allowed: {allowed}"
    ):
        messages.audit(payload, set(), SIZE)


MIXED = {
    "float": jnp.array([[1.0, -2.0], [0.0, 3e38]], jnp.float32),
    "half": jnp.array([1.0, -3e38], jnp.bfloat16),
    "int": jnp.array([7, -(2**31)], jnp.int32),
    "empty": jnp.zeros((0, 3), jnp.float32),
    "scalar": jnp.float32(1e-40),
}


def test_every_finite_number_passes():
    assert messages.all_finite(MIXED)
    assert messages.all_finite({})


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("name", ["float", "half"])
def test_one_number_that_is_not_finite_is_found(bad, name):
    leaf = MIXED[name]
    spoilt = MIXED | {name: leaf.at[(1,) * leaf.ndim].set(jnp.asarray(bad, leaf.dtype))}
    assert not messages.all_finite(spoilt)
    assert not jax.jit(messages.all_finite)(spoilt)
