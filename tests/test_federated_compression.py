"""Sizes and errors of compressed updates, and error feedback over many rounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.relay.federated import compression as compressions
from ecogen_jax.relay.federated.compression import COMPRESSIONS, carried

LIKE = {
    "kernel": jax.ShapeDtypeStruct((10, 20), jnp.float32),
    "bias": jax.ShapeDtypeStruct((20,), jnp.float32),
}
NUM_VALUES = 220


def build(name, keep=0.1):
    return compressions.compression(name, keep=keep, like=LIKE)


def draw(seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), LIKE
    )


def num_bytes(payload):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(payload))


def through(method, update):
    return method.decode(method.encode(update))


def leaves(*trees):
    return zip(*map(jax.tree.leaves, trees), strict=True)


@pytest.mark.parametrize(
    ("name", "keep", "expected"),
    [
        ("none", 0.1, 4 * NUM_VALUES),
        ("bf16", 0.1, 2 * NUM_VALUES),
        ("int8", 0.1, NUM_VALUES + 2 * 4),
        ("topk", 0.1, (20 + 2) * 8),
        ("topk", 0.001, (1 + 1) * 8),
        ("topk", 1.0, NUM_VALUES * 8),
    ],
)
def test_bytes_by_hand(name, keep, expected):
    # Shapes are enough to count by, so that nothing has to be run for it.
    payload = jax.eval_shape(build(name, keep).encode, LIKE)
    assert num_bytes(payload) == expected
    assert num_bytes(build(name, keep).encode(draw())) == expected


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_what_comes_out_is_shaped_as_what_went_in_also_for_many_clients(name):
    method = build(name)
    assert jax.eval_shape(lambda update: through(method, update), LIKE) == LIKE
    many = jax.tree.map(lambda *rows: jnp.stack(rows), draw(1), draw(2))
    mapped = jax.jit(jax.vmap(lambda update: through(method, update)))(many)
    for found, single in leaves(mapped, through(method, draw(2))):
        np.testing.assert_allclose(found[1], single, rtol=1e-6)


@pytest.mark.parametrize(("name", "keep"), [("none", 0.1), ("topk", 1.0)])
def test_what_keeps_everything_is_exact(name, keep):
    for found, expected in leaves(through(build(name, keep), draw()), draw()):
        assert np.array_equal(found, expected)


def test_bf16_is_exact_to_eight_bits():
    for found, expected in leaves(through(build("bf16"), draw()), draw()):
        error = np.abs(found - expected)
        assert np.all(error <= np.abs(expected) * 2.0**-8)
        assert np.any(error > 0)


def test_int8_is_exact_to_half_a_step_of_each_leaf():
    update = draw() | {"bias": 1000 * draw()["bias"]}
    for found, expected in leaves(through(build("int8"), update), update):
        step = np.abs(expected).max() / 127
        error = np.abs(found - expected)
        assert error.max() <= step / 2 * (1 + 1e-4)
        assert error.max() > step / 4
        largest = np.abs(expected).argmax()
        assert found.ravel()[largest] == pytest.approx(expected.ravel()[largest])


def test_topk_sends_the_largest_of_each_leaf_and_nothing_else():
    for found, update in leaves(through(build("topk"), draw()), draw()):
        found, flat = np.ravel(found), np.ravel(update)
        largest = np.argsort(-np.abs(flat))[: round(0.1 * flat.size)]
        assert np.array_equal(np.sort(np.flatnonzero(found)), np.sort(largest))
        assert np.array_equal(found[largest], flat[largest])


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_zeros_stay_zeros(name):
    zeros = jax.tree.map(jnp.zeros_like, draw())
    for (leaf,) in leaves(through(build(name), zeros)):
        assert np.all(np.asarray(leaf) == 0.0)


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_the_receiver_can_tell_that_a_value_was_not_finite(name, bad):
    update = draw()
    update = update | {"kernel": update["kernel"].at[7, 3].set(bad)}
    found = through(build(name), update)
    assert not np.all(np.isfinite(found["kernel"]))
    assert np.all(np.isfinite(found["bias"]))


@pytest.mark.parametrize("name", ["int8", "topk"])
def test_with_error_feedback_everything_arrives_in_the_end(name):
    """sum_t decoded_t = sum_t x_t - e_T, and e does not grow with T."""
    method = build(name)
    assert method.feeds_back
    step = jax.jit(lambda update, error: carried(method, update, error))
    error = jax.tree.map(jnp.zeros_like, draw())
    sent, arrived, largest = error, error, []
    for number in range(120):
        # A drift that is smaller than the steps of int8 or the top of topk.
        update = jax.tree.map(lambda leaf: leaf + 0.01, draw(number))
        payload, error = step(update, error)
        sent = jax.tree.map(jnp.add, sent, update)
        arrived = jax.tree.map(jnp.add, arrived, method.decode(payload))
        largest.append(max(float(jnp.abs(e).max()) for (e,) in leaves(error)))
    for all_sent, all_arrived, lost in leaves(sent, arrived, error):
        np.testing.assert_allclose(all_sent - all_arrived, lost, atol=1e-4)
    assert max(largest[60:]) < 1.5 * max(largest[:60])


def test_error_feedback_by_hand():
    like = {"x": jnp.zeros(4)}
    method = compressions.compression("topk", keep=0.25, like=like)
    update = {"x": jnp.asarray([1.0, -3.0, 2.0, 0.5])}
    payload, error = carried(method, update, like)
    assert (payload.values["x"][0], payload.indices["x"][0]) == (-3.0, 1)
    assert error["x"].tolist() == [1.0, 0.0, 2.0, 0.5]
    payload, error = carried(method, update, error)
    # What was held back twice is larger by now than what is new.
    assert (payload.values["x"][0], payload.indices["x"][0]) == (4.0, 2)
    assert error["x"].tolist() == [2.0, -3.0, 0.0, 1.0]


def test_what_loses_little_carries_nothing():
    assert {name for name in COMPRESSIONS if build(name).feeds_back} == {"int8", "topk"}


def test_errors_say_what_is_allowed():
    with pytest.raises(ValueError, match="compression is 'zip'; allowed: none, bf16"):
        build("zip")
    for keep in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"keep is {keep}: allowed is a share"):
            build("topk", keep)
