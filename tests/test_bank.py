"""The replay bank: a ring that never shows what was not written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.relay import bank as banks

SHAPE, CLASSES = (2, 2, 1), 3
write = jax.jit(banks.write)
sample = jax.jit(banks.sample, static_argnames="batch")


def batch(*labels):
    """Images and logits that can be told by their label."""
    column = np.asarray(labels, np.int32)[:, None]
    images = np.broadcast_to(column[..., None, None], (len(labels), *SHAPE))
    logits = np.broadcast_to(column / 4, (len(labels), CLASSES))
    return (
        jnp.asarray(images, jnp.uint8),
        jnp.asarray(column[:, 0]),
        jnp.asarray(logits, jnp.float32),
    )


def filled(size, *batches):
    bank = banks.empty(size, SHAPE, CLASSES)
    for labels in batches:
        bank = write(bank, *batch(*labels))
    return bank


def test_an_empty_bank_has_room_for_what_was_asked():
    bank = banks.empty(5, SHAPE, CLASSES)
    assert bank.images.shape == (5, *SHAPE)
    assert bank.images.dtype == jnp.uint8
    assert bank.logits.shape == (5, CLASSES)
    assert int(bank.written) == 0


def test_writing_fills_slots_in_order():
    bank = filled(5, (1, 2), (3,))
    np.testing.assert_array_equal(bank.labels, [1, 2, 3, 0, 0])
    assert int(bank.written) == 3


def test_writing_goes_round_and_overwrites_the_oldest():
    bank = filled(5, (1, 2, 3), (4, 5, 6))
    np.testing.assert_array_equal(bank.labels, [6, 2, 3, 4, 5])
    np.testing.assert_array_equal(bank.images[:, 0, 0, 0], [6, 2, 3, 4, 5])
    np.testing.assert_array_equal(bank.logits[:, 0] * 4, [6, 2, 3, 4, 5])
    assert int(bank.written) == 6
    bank = write(bank, *batch(7, 8, 9, 10, 11))
    np.testing.assert_array_equal(bank.labels, [11, 7, 8, 9, 10])


def draw(bank, count=200):
    return sample(bank, jax.random.key(0), batch=count)


@pytest.mark.parametrize(
    ("batches", "present"),
    [
        (((4,),), {4}),
        (((1, 2, 3),), {1, 2, 3}),
        (((1, 2, 3), (4, 5, 6)), {2, 3, 4, 5, 6}),
    ],
)
def test_samples_come_from_all_that_is_held_and_from_nothing_else(batches, present):
    _, labels, _ = draw(filled(5, *batches))
    assert set(np.asarray(labels).tolist()) == present


def test_image_label_and_logits_of_a_sample_belong_together():
    images, labels, logits = draw(filled(5, (1, 2, 3), (4, 5, 6)))
    assert images.dtype == jnp.uint8
    assert images.shape == (200, *SHAPE)
    np.testing.assert_array_equal(
        images, np.broadcast_to(np.asarray(labels)[:, None, None, None], images.shape)
    )
    np.testing.assert_array_equal(logits[:, 2] * 4, labels)


def test_samples_are_uniform_and_follow_the_key():
    bank = filled(4, (0, 1, 2, 3), (0, 1, 2, 3), (0, 1, 2, 3))
    _, labels, _ = draw(bank, 4000)
    counts = np.bincount(labels, minlength=4)
    assert counts.min() > 900  # three standard deviations below 1000
    _, other, _ = sample(bank, jax.random.key(1), batch=4000)
    assert not np.array_equal(labels, other)


def test_writing_inside_a_scan_is_writing_one_by_one():
    def step(bank, items):
        return banks.write(bank, *items), None

    parts = [batch(*labels) for labels in ((1, 2), (3, 4), (5, 6))]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    bank, _ = jax.jit(lambda b, s: jax.lax.scan(step, b, s))(filled(5), stacked)
    expected = filled(5, (1, 2), (3, 4), (5, 6))
    for one, other in zip(
        jax.tree.leaves(bank), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_bank_can_be_abstract_or_copied_to_the_host():
    # Checkpoints and FLOP counts need both: no field may insist on a device array.
    bank = filled(5, (1, 2))
    shapes = jax.eval_shape(lambda b: banks.write(b, *batch(3)), bank)
    assert shapes.images.shape == (5, *SHAPE)
    np.testing.assert_array_equal(jax.device_get(bank).labels, [1, 2, 0, 0, 0])


def test_a_batch_larger_than_the_bank_is_refused():
    with pytest.raises(ValueError, match=r"bank_size is 2 but a batch of 3.*at least"):
        filled(2, (1, 2, 3))


def reservoir(seed, size=5, batches=((0, 1, 2), (3, 4, 5), (6, 7, 8))):
    """A reservoir after some batches of three, each with a key of its own."""
    bank = banks.empty(size, SHAPE, CLASSES)
    for key, labels in zip(jax.random.split(seed, len(batches)), batches, strict=True):
        bank = banks.write(bank, *batch(*labels), key=key)
    return bank


def test_a_reservoir_takes_everything_until_it_is_full():
    bank = reservoir(jax.random.key(0), size=10)
    np.testing.assert_array_equal(bank.labels, [*range(9), 0])
    assert int(bank.written) == 9


def test_a_reservoir_keeps_every_image_with_the_same_chance():
    draws = 4000
    labels = jax.vmap(lambda key: reservoir(key).labels)(
        jax.random.split(jax.random.key(1), draws)
    )
    kept = np.array([(labels == label).any(axis=1).mean() for label in range(9)])
    # Five of nine are kept; 0.025 is three standard deviations of a share.
    np.testing.assert_allclose(kept, 5 / 9, atol=0.025)


def test_a_reservoir_never_holds_an_image_twice():
    labels = jax.vmap(lambda key: reservoir(key).labels)(
        jax.random.split(jax.random.key(2), 500)
    )
    assert all(len(set(row)) == 5 for row in np.asarray(labels).tolist())


def test_image_label_and_logits_of_a_reservoir_belong_together():
    bank = reservoir(jax.random.key(3))
    np.testing.assert_array_equal(bank.images[:, 0, 0, 0], bank.labels)
    np.testing.assert_array_equal(bank.logits[:, 0] * 4, bank.labels)
    assert not np.array_equal(bank.labels, filled(5, (0, 1, 2), (3, 4, 5)).labels)
