"""Bytes after fusion and bytes alive at once, by hand and against XLA."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.experimental import pallas
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from ecogen_jax.energy import meter


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def matmul(a, b):
    return a @ b


def scanned(layers):
    def run(x, w):
        return lax.scan(lambda h, _: (h @ w, None), x, None, length=layers)[0]

    return run


def halving(x, w):
    def go_on(carry):
        return carry[0].sum() > 1.0

    def shrink(carry):
        state, weights = carry
        return state @ weights, weights

    return lax.while_loop(go_on, shrink, (x, w))[0]


def softened(x):
    return jax.jit(lambda y: jnp.exp(y) * 2.0 + y)(x)


def test_fusion_leaves_inputs_and_results():
    count = meter.cost(softened, array(32))
    assert count.bytes == 4 * (2 + 2 + 3) * 32
    assert count.bytes_low == 4 * 2 * 32


def test_fused_loops_read_weights_and_carry_once_a_trip():
    count = meter.cost(scanned(16), array(2, 8), array(8, 8))
    assert count.bytes_low == 16 * 4 * (64 + 2 * 16)
    assert count.bytes_low == count.bytes


def test_fusion_moves_only_the_slices_and_updates_of_a_large_array():
    def program(table, index, update):
        new = lax.dynamic_update_slice_in_dim(table, update, 0, axis=0)
        return new, lax.dynamic_index_in_dim(table, index) * 2.0

    args = array(1000, 8), array(dtype=jnp.int32), array(2, 8)
    count = meter.cost(program, *args)
    # The slice read, the index, the update read and written, the doubled slice.
    assert count.bytes_low == 4 * (8 + 1 + 16 + 16 + 8)
    assert count.bytes > 4 * 3000 * 8


def train(x, w):
    def loss(w):
        return lax.scan(lambda h, layer: (jnp.sin(h @ layer), None), x, w)[0].sum()

    return jax.value_and_grad(loss)(w)


@pytest.mark.parametrize(
    ("fn", "args"),
    [
        (matmul, (array(8, 16), array(16, 4))),
        (softened, (array(32),)),
        (train, (array(4, 8), array(5, 8, 8))),
        (jax.jit(jax.grad(jax.nn.logsumexp)), (array(9),)),
    ],
)
def test_fused_bytes_never_exceed_unfused_ones(fn, args):
    count = meter.cost(fn, *args)
    assert 0 < count.bytes_low == count.bytes_fused <= count.bytes


def test_peak_memory_frees_what_is_used_up():
    def chain(x):
        return jnp.tanh(jnp.exp(jnp.sin(x)))

    # The argument is held; at most an operand and a result are alive beside it.
    assert meter.cost(chain, array(100)).peak_bytes == 4 * 300
    assert meter.cost(jax.jit(chain), array(100)).peak_bytes == 4 * 300


def test_peak_memory_of_a_scan_grows_with_what_it_stacks():
    def stacked(layers):
        def run(x):
            return lax.scan(lambda h, _: (jnp.sin(h), h), x, None, length=layers)

        return meter.cost(run, array(100)).peak_bytes

    # The argument, the final carry and the next one, and the stacked results.
    assert stacked(10) == 4 * 100 * (3 + 10)
    assert stacked(20) - stacked(10) == 4 * 100 * 10


def test_peak_memory_is_lower_with_checkpoint():
    def loss(wrap):
        def run(x, w):
            layer = wrap(lambda h, p: jnp.sin(jnp.sin(jnp.sin(h @ p))))
            return lax.scan(lambda h, p: (layer(h, p), None), x, w)[0].sum()

        return jax.grad(run, 1)

    args = array(64, 8), array(20, 8, 8)
    plain = meter.cost(loss(lambda layer: layer), *args)
    remat = meter.cost(loss(jax.checkpoint), *args)
    assert remat.peak_bytes < plain.peak_bytes
    assert remat.flops > plain.flops


@pytest.mark.parametrize(
    ("fn", "args"),
    [
        (matmul, (array(64, 64), array(64, 64))),
        (train, (array(16, 32), array(8, 32, 32))),
        (scanned(16), (array(16, 64), array(64, 64))),
    ],
)
def test_peak_memory_bounds_what_xla_allocates(fn, args):
    used = jax.jit(fn).lower(*args).compile().memory_analysis()
    allocated = (
        used.argument_size_in_bytes
        + used.temp_size_in_bytes
        + used.output_size_in_bytes
        - used.alias_size_in_bytes
    )
    assert meter.cost(fn, *args).peak_bytes >= 0.9 * allocated


def test_straight_code_and_loops_hand_arrays_over_through_memory():
    def sines(x):
        x, _ = lax.scan(lambda x, _: (jnp.sin(x), None), jnp.sin(x), length=1)
        return jnp.sin(x)

    # Three kernels, each of which reads one array and writes one.
    assert meter.cost(sines, array(8, 8)).bytes_fused == 3 * 2 * 4 * 64

    def copied(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        copy = pallas.pallas_call(lambda x, out: out.at[...].set(x[...]), shape)
        return jnp.sin(copy(jnp.sin(x)))

    assert meter.cost(copied, array(8, 8)).bytes_fused == 3 * 2 * 4 * 64


def test_the_body_of_a_shard_map_is_fused_with_what_surrounds_it():
    mesh = jax.make_mesh((1,), ("i",), axis_types=(AxisType.Auto,))
    inner = jax.shard_map(jnp.sin, mesh=mesh, in_specs=P("i"), out_specs=P("i"))
    count = meter.cost(lambda x: jnp.sin(inner(jnp.sin(x))), array(8, 8))
    assert count.bytes_fused == 2 * 2 * 4 * 64  # its own two, and those around it


def test_bounded_while_and_cond_have_their_cheapest_and_dearest_bytes():
    args = array(8, 8), array(8, 8)
    count = meter.cost(halving, *args, while_trips=7)
    assert count.bytes_low == 0
    # A trip: state in for the test, its answer; state and weights in, state out.
    assert count.bytes_fused == 7 * (4 * 64 + 1 + 4 * 3 * 64)

    def either(flag, x):
        return lax.cond(flag, lambda x: x * 2.0, lambda x: x, x)

    count = meter.cost(either, array(dtype=jnp.bool_), array(8, 8))
    assert count.bytes_low == 1 + 4  # the flag, and the index made of it
    assert count.bytes_fused == 1 + 4 + 4 * 2 * 64
    assert count.bytes >= 4 * 2 * 64


def test_trips_and_branches_inside_others_multiply():
    def either(x, w):
        return lax.cond(x[0, 0] > 0, lambda: halving(x, w), lambda: x)

    def program(x, w):
        return lax.fori_loop(0, 5, lambda _, x: either(x, w), x)

    args = array(8, 8), array(8, 8)
    never, seven = (meter.cost(program, *args, while_trips=n) for n in (0, 7))
    assert seven.bytes_low == never.bytes_low == never.bytes_fused
    inside = 7 * (4 * 64 + 1 + 4 * 3 * 64)
    assert seven.bytes_fused - seven.bytes_low == 5 * inside


def test_constants_are_inputs():
    table = jnp.arange(6.0)
    count = meter.cost(lambda x: x * table, array(6))
    assert count.bytes_low == 4 * 3 * 6
    assert count.peak_bytes == 4 * 3 * 6


def test_peak_memory_of_a_loop_counts_its_carry_twice_and_its_weights_once():
    count = meter.cost(halving, array(8, 8), array(8, 8), while_trips=3)
    # Two arguments, the state and the next state.
    assert count.peak_bytes == 4 * 64 * 4


def test_shards_hold_their_own_copies():
    mesh = jax.make_mesh((8,), ("client",), axis_types=(AxisType.Auto,))
    specs = (P("client"), P())
    sharded = jax.shard_map(matmul, mesh=mesh, in_specs=specs, out_specs=specs[0])
    count = meter.cost(sharded, array(8, 4), array(4, 4))
    assert count.peak_bytes == count.bytes_low == 4 * (32 + 32 + 8 * 16)


def test_an_array_that_was_updated_is_still_read():
    def attend(cache, query, new, index):
        cache = lax.dynamic_update_slice_in_dim(cache, new, index, axis=0)
        return jax.nn.softmax(cache @ query) @ cache, cache

    args = array(1000, 8), array(8), array(1, 8), array(dtype=jnp.int32)
    count = meter.cost(attend, *args)
    # All rows but the new one, query, new row and index; the result and the new row.
    assert count.bytes_low == 4 * (999 * 8 + 8 + 8 + 1 + 8 + 8)


def test_a_row_that_was_just_made_need_not_be_read():
    def program(table, index, update):
        new = lax.dynamic_update_slice_in_dim(table, update, 0, axis=0)
        return new, lax.dynamic_index_in_dim(new, index) * 2.0

    args = array(1000, 8), array(dtype=jnp.int32), array(2, 8)
    # Index and update read; update and doubled row written.
    assert meter.cost(program, *args).bytes_low == 4 * (1 + 16 + 16 + 8)


def test_a_loop_reads_what_it_carries_and_updates():
    def step(cache, new):
        cache = lax.dynamic_update_slice_in_dim(cache, new, 0, axis=0)
        return cache, cache.sum()

    count = meter.cost(lambda *a: lax.scan(step, *a), array(100, 8), array(10, 1, 8))
    # A trip: 99 rows, the new one in and out, the sum.
    assert count.bytes_low == 10 * 4 * (99 * 8 + 8 + 8 + 1)


def test_a_slice_of_what_is_read_whole_is_read_once():
    def program(table, new):
        head = lax.slice_in_dim(table, 10, 14)
        return head * 2.0, lax.dynamic_update_slice_in_dim(table, new, 0, 0).sum()

    count = meter.cost(program, array(100, 8), array(4, 8))
    # All rows but the updated ones, the update in and out, the slice out, the sum.
    assert count.bytes_low == 4 * (96 * 8 + 32 + 32 + 32 + 1)
