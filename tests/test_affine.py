"""Factor and offset by channel have the gradients of the plain formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ecogen_jax.nets.affine import FEW, affine
from ecogen_jax.nets.textbook import textbook

SHAPES = [(4, 6, 6, 6), (3, 5, 1), (7, 3), (128, 15), (2, 4, FEW), (1, 1, 1, 2)]


def arrays(shape):
    rng = np.random.default_rng(0)
    shapes = (shape, shape[-1:], shape[-1:], shape)
    return [jnp.asarray(rng.normal(size=size), jnp.float32) for size in shapes]


def value_and_gradients(fn, x, factor, offset, cotangent):
    value, pullback = jax.vjp(fn, x, factor, offset)
    return value, *pullback(cotangent)


@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradients_are_those_of_the_formula(shape):
    x, factor, offset, cotangent = arrays(shape)
    found = value_and_gradients(affine, x, factor, offset, cotangent)
    axes = tuple(range(len(shape) - 1))
    wide, times, plus, back = (
        np.asarray(a, np.float64) for a in (x, factor, offset, cotangent)
    )
    wanted = (
        wide * times + plus,
        back * times,
        np.sum(wide * back, axes),
        np.sum(back, axes),
    )
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_gradients_of_gradients_by_finite_differences():
    x, factor, offset, _ = arrays((2, 3, 2))

    def fn(*some):  # finite differences are of NumPy's arrays
        return jnp.sum(jnp.sin(affine(*map(jnp.asarray, some))))

    check_grads(fn, (x, factor, offset), order=2, modes=["rev"], rtol=1e-2)


def test_clients_have_gradients_of_their_own():
    each = [jnp.stack([a, 2.0 * a]) for a in arrays((3, 4, 2))]
    found = jax.vmap(lambda *one: value_and_gradients(affine, *one))(*each)
    for client in range(2):
        alone = value_and_gradients(affine, *(a[client] for a in each))
        for ours, theirs in zip(found, alone, strict=True):
            np.testing.assert_allclose(ours[client], theirs, rtol=1e-5, atol=1e-6)


def test_few_channels_are_added_up_in_long_rows():
    def sums(*some):
        lines = str(jax.make_jaxpr(everything)(*some)).splitlines()
        return [line for line in lines if "reduce_sum" in line]

    def everything(*some):
        return value_and_gradients(affine, *some)

    few, many = arrays((8, 6)), arrays((8, FEW))
    assert any("[48]" in line for line in sums(*few))
    assert all(f"[{FEW}]" in line for line in sums(*many))
    with textbook(True):
        assert not any("[48]" in line for line in sums(*few))
