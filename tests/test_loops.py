"""Loops and branches that only a stated bound or an interval can count."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.experimental import pallas

from ecogen_jax.energy import meter


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def scanned(layers):
    def run(x, w):
        return lax.scan(lambda h, _: (h @ w, None), x, None, length=layers)[0]

    return run


def test_cond_is_an_interval():
    def branches(flag, x):
        return lax.cond(flag, lambda x: x @ x, lambda x: x, x)

    count = meter.cost(branches, array(dtype=jnp.bool_), array(8, 8))
    assert count.flops_low == 0
    assert count.flops == 2 * 8**3


def halving(x, w):
    def go_on(carry):
        return carry[0].sum() > 1.0

    def shrink(carry):
        state, weights = carry
        return state @ weights, weights

    return lax.while_loop(go_on, shrink, (x, w))[0]


@pytest.mark.parametrize("bound", [7, {"shrink": 7, "other": 1}])
def test_while_with_a_stated_bound_is_an_interval(bound):
    args = array(8, 8), array(8, 8)
    count = meter.cost(halving, *args, while_trips=bound)
    assert count.by_class["matmul"] == 7 * 2 * 8**3
    assert count.by_class["reduction"] == 7 * 64
    assert count.flops_low == count.bytes_low == 0


@pytest.mark.parametrize(
    ("bound", "match"),
    [(None, r"\{'shrink': 100\}"), ({"other": 3}, "'other': 3"), (-1, "is -1")],
)
def test_while_without_a_bound_says_how_to_state_one(bound, match):
    with pytest.raises(ValueError, match=match):
        meter.cost(halving, array(8, 8), array(8, 8), while_trips=bound)


def until_flagged(x):
    def go_on(carry):
        return (carry[0] < 2, carry[1])[1]

    def grow(carry):
        i, flag, x = carry
        return i + 1, flag & (x.sum() < 100.0), x + 1.0

    return lax.while_loop(go_on, grow, (0, jnp.bool_(True), x))[2]


def in_halves(x):
    def grow(carry):
        return carry[0] + 1.0, carry[1] + 1.0

    return lax.while_loop(lambda carry: carry[0] < 2.5, grow, (0.0, x))[1]


@pytest.mark.parametrize("loop", [until_flagged, in_halves])
def test_a_loop_that_only_looks_static_needs_a_bound(loop):
    with pytest.raises(ValueError, match="without a static trip count"):
        meter.cost(loop, array(4))


def test_static_loops_take_no_bound_and_have_no_interval():
    count = meter.cost(scanned(16), array(8, 8), array(8, 8), while_trips=1)
    assert count.flops == count.flops_low == 16 * 2 * 8**3


def kernel_product(grid):
    """An 8 x 16 by 16 x 4 product, two rows at a time."""

    def kernel(x, y, out):
        out[...] = x[...] @ y[...] + 1.0

    def product(x, y):
        return pallas.pallas_call(
            kernel,
            out_shape=array(8, 4),
            grid=grid,
            in_specs=[
                pallas.BlockSpec((2, 16), lambda i: (i, 0)),
                pallas.BlockSpec((16, 4), lambda i: (0, 0)),
            ],
            out_specs=pallas.BlockSpec((2, 4), lambda i: (i, 0)),
        )(x, y)

    return product


def test_a_pallas_kernel_counts_once_for_each_cell_of_its_grid():
    count = meter.cost(kernel_product((4,)), array(8, 16), array(16, 4))
    assert count.by_class["matmul"] == 2 * 8 * 16 * 4
    assert count.flops == 2 * 8 * 16 * 4 + 8 * 4
    moved = 4 * (8 * 16 + 16 * 4 + 8 * 4)
    assert count.bytes == count.bytes_fused == count.peak_bytes == moved


def test_a_pallas_kernel_whose_grid_is_computed_is_refused():
    def product(cells, x, y):
        return kernel_product((cells,))(x, y)

    with pytest.raises(ValueError, match=r"pallas_call has .*Python integers"):
        meter.cost(product, array(dtype=jnp.int32), array(8, 16), array(16, 4))
