"""Hand counts of the meter, and XLA as a cross-check on programs without loops."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from ecogen_jax.energy import meter

M, K, N = 8, 16, 4
MATMUL = 2 * M * K * N


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def conv(x, w, padding="VALID", strides=(1, 1), **options):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, w, strides, padding, dimension_numbers=layout, **options
    )


def matmul(a, b):
    return a @ b


def xla_flops(fn, *args):
    return jax.jit(fn).lower(*args).compile().cost_analysis()["flops"]


def test_matmul_is_two_mnk_and_its_bytes_are_operands_and_result():
    count = meter.cost(matmul, array(M, K), array(K, N))
    assert count.flops == count.by_class["matmul"] == MATMUL
    assert count.bytes == 4 * (M * K + K * N + M * N)


def test_bytes_follow_the_dtype():
    half = [array(M, K, dtype=jnp.bfloat16), array(K, N, dtype=jnp.bfloat16)]
    assert meter.cost(matmul, *half).bytes == 2 * (M * K + K * N + M * N)


def test_batched_matmul_counts_the_batch_once():
    assert meter.cost(matmul, array(5, M, K), array(5, K, N)).flops == 5 * MATMUL


def test_ragged_matmul_meets_each_row_once_and_so_do_its_gradients():
    rows, k, n, groups = 32, 8, 16, 4
    args = array(rows, k), array(groups, k, n), array(groups, dtype=jnp.int32)
    count = meter.cost(lax.ragged_dot, *args)
    assert count.by_class["matmul"] == 2 * rows * k * n

    def summed(x, w, sizes):
        return lax.ragged_dot(x, w, sizes).sum()

    both = meter.cost(jax.grad(summed, argnums=(0, 1)), *args)
    assert both.by_class["matmul"] == 2 * count.by_class["matmul"]


def test_a_linear_solve_multiplies_nothing_that_only_its_gradient_needs():
    count = meter.cost(jnp.linalg.solve, array(16, 16), array(16))
    assert count.by_class["matmul"] == 0


def test_vmap_equals_the_batched_program():
    args = array(3, M, K), array(3, K, N)
    assert meter.cost(jax.vmap(matmul), *args).flops == 3 * MATMUL


def test_attention():
    def attention(q, k, v):
        return jax.nn.softmax(q @ k.T) @ v

    length, width = 12, 16
    count = meter.cost(attention, *[array(length, width)] * 3)
    assert count.by_class["matmul"] == 2 * 2 * length * length * width
    # The row maximum and the row sum of the softmax.
    assert count.by_class["reduction"] == 2 * length * length


@pytest.mark.parametrize(
    ("options", "side", "inputs"),
    [
        ({"padding": "VALID"}, 14, 6),
        ({"padding": "SAME"}, 16, 6),
        ({"padding": "SAME", "strides": (2, 2)}, 8, 6),
        ({"padding": "VALID", "feature_group_count": 2}, 14, 3),
        ({"padding": "VALID", "rhs_dilation": (2, 2)}, 12, 6),
    ],
)
def test_conv_by_hand(options, side, inputs):
    count = meter.cost(
        lambda x, w: conv(x, w, **options), array(2, 16, 16, 6), array(3, 3, inputs, 4)
    )
    assert count.flops == count.by_class["conv"] == 2 * 2 * side**2 * 4 * 9 * inputs


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize("groups", [1, 2])
def test_each_gradient_of_a_conv_costs_what_the_conv_costs(padding, strides, groups):
    def loss(x, w):
        return conv(x, w, padding, strides, feature_group_count=groups).sum()

    args = array(2, 16, 16, 4), array(3, 3, 4 // groups, 6)
    forward = meter.cost(loss, *args).by_class["conv"]
    grads = meter.cost(jax.grad(loss, (0, 1)), *args).by_class["conv"]
    assert grads == 2 * forward


def test_upsampling_conv_does_not_count_the_holes_of_its_input():
    def upsample(x, w):
        return lax.conv_transpose(x, w, (2, 2), "SAME")

    count = meter.cost(upsample, array(2, 8, 8, 3), array(4, 4, 3, 5))
    assert count.flops == 2 * 2 * 8 * 8 * 16 * 3 * 5


def test_elementwise_counts_outputs_and_movement_counts_nothing():
    def program(x):
        moved = jnp.stack([checkpoint_name(x, "x")] * 2), jnp.tile(x, 2)
        return moved, x.reshape(4, 8).T.astype(jnp.bfloat16), jnp.exp(x) * 2.0

    count = meter.cost(program, array(32))
    assert count.flops == count.by_class["elementwise"] == 64


def test_reductions_count_their_inputs():
    count = meter.cost(lambda x: (x.sum(0), jnp.cumsum(x, 1), x.argmax(1)), array(4, 6))
    assert count.by_class["reduction"] == 3 * 24


def test_pooling_and_its_gradient_count_each_window():
    def pool(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (2, 2), "VALID")

    assert meter.cost(pool, array(8, 8)).by_class["reduction"] == 16 * 4
    backward = meter.cost(jax.grad(lambda x: pool(x).sum()), array(8, 8))
    assert backward.by_class["reduction"] == 16 * 4
    forward = meter.cost(lambda x: jax.jvp(pool, (x,), (x,))[1], array(8, 8))
    assert forward.by_class["reduction"] == 16 * 4


def test_scatter_add_counts_updates_not_the_table():
    def add(table, updates):
        return table.at[jnp.array([0, 2, 5])].add(updates)

    count = meter.cost(add, array(100, 7), array(3, 7))
    assert count.by_class["reduction"] == 3 * 7


def scanned(layers):
    def run(x, w):
        return lax.scan(lambda h, _: (h @ w, None), x, None, length=layers)[0]

    return run


def test_scan_of_16_layers_counts_16_bodies_where_xla_counts_one():
    args = array(16, 16), array(16, 16)
    one = 2 * 16**3
    assert meter.cost(scanned(16), *args).flops == 16 * one
    assert xla_flops(scanned(16), *args) < 2 * one


def test_nested_scans_and_jits_multiply():
    def outer(x, w):
        step = jax.jit(scanned(4))
        return lax.scan(lambda h, _: (step(h, w), None), x, None, length=3)[0]

    assert meter.cost(outer, array(8, 8), array(8, 8)).flops == 12 * 2 * 8**3


def test_gradient_of_a_two_layer_mlp():
    def loss(params, x):
        hidden = jnp.maximum(x @ params["in"], 0.0)
        return ((hidden @ params["out"]) ** 2).sum()

    params = {"in": array(K, 32), "out": array(32, N)}
    count = meter.cost(jax.grad(loss), params, array(M, K))
    first, second = 2 * M * K * 32, 2 * M * 32 * N
    # Two forward; weights of both layers and the hidden activations backward.
    assert count.by_class["matmul"] == first + second + first + 2 * second


def test_checkpoint_counts_the_recomputation():
    def loss(x, w, wrap):
        layer = wrap(lambda h: jnp.sin(jnp.sin(h @ w) @ w))
        return layer(x).sum()

    args = array(8, 8), array(8, 8)
    one = 2 * 8**3

    def train(wrap):
        return jax.value_and_grad(lambda x, w: loss(x, w, wrap))

    plain = meter.cost(train(lambda layer: layer), *args)
    remat = meter.cost(train(jax.checkpoint), *args)
    assert plain.by_class["matmul"] == 4 * one
    assert remat.by_class["matmul"] == 6 * one


def test_custom_derivatives_are_walked_through():
    @jax.custom_jvp
    def first(x):
        return x @ x

    first.defjvps(lambda t, ans, x: t @ x)

    @jax.custom_vjp
    def second(x):
        return x @ x

    second.defvjp(lambda x: (x @ x, x), lambda x, g: (g @ x,))
    one = 2 * 8**3
    assert meter.cost(lambda x: first(second(x)), array(8, 8)).flops == 2 * one
    both = meter.cost(jax.value_and_grad(lambda x: second(x).sum()), array(8, 8))
    assert both.by_class["matmul"] == 2 * one


def test_cond_takes_the_dearest_branch():
    def branches(flag, x):
        return lax.cond(flag, lambda x: x @ x, lambda x: x @ x @ x, x)

    count = meter.cost(branches, array(dtype=jnp.bool_), array(8, 8))
    assert count.by_class["matmul"] == 2 * 2 * 8**3


@pytest.mark.parametrize("bounds", [(0, 10), (jnp.int32(2), jnp.int32(12))])
def test_fori_loop_with_static_bounds(bounds):
    def loop(x):
        return lax.fori_loop(*bounds, lambda i, h: h @ x, x)

    assert meter.cost(loop, array(8, 8)).by_class["matmul"] == 10 * 2 * 8**3


@pytest.mark.parametrize(
    ("test", "step"),
    [
        (lambda c: c[1].sum() < 9.0, lambda c: (c[0] + 1, c[1] @ c[1])),
        (lambda c: c[0] < 9, lambda c: (c[0] + 2, c[1] @ c[1])),
        (lambda c: c[0] < 9, lambda c: (c[0] * 2, c[1] @ c[1])),
        (lambda c: c[0] > 9, lambda c: (c[0] + 1, c[1] @ c[1])),
    ],
)
def test_while_that_does_not_plainly_count_is_refused_by_name(test, step):
    def endless_body(carry):
        return step(carry)

    def loop(x):
        return lax.while_loop(test, endless_body, (0, x))

    with pytest.raises(ValueError, match=r"endless_body.*float32\[8,8\].*lax.scan"):
        meter.cost(loop, array(8, 8))


def test_while_with_a_bound_that_the_body_moves_is_refused():
    def loop(x):
        return lax.while_loop(
            lambda c: c[0] < c[1], lambda c: (c[0] + 1, c[1] - 1, c[2] @ x), (0, 9, x)
        )

    with pytest.raises(ValueError, match="trip count"):
        meter.cost(loop, array(8, 8))


def test_fori_loop_with_a_traced_bound_is_refused():
    def loop(n, x):
        return lax.fori_loop(0, n, lambda i, h: h @ x, x)

    with pytest.raises(ValueError, match="trip count"):
        meter.cost(loop, array(dtype=jnp.int32), array(8, 8))


def mesh(*sizes):
    names = ("client", "model")[: len(sizes)]
    return jax.make_mesh(sizes, names, axis_types=(AxisType.Auto,) * len(sizes))


def test_shard_map_counts_every_shard():
    def mean(a, b):
        return lax.pmean(a @ b, "client")

    sharded = jax.shard_map(
        mean, mesh=mesh(8), in_specs=(P("client"), P()), out_specs=P()
    )
    count = meter.cost(sharded, array(16, K), array(K, N))
    assert count.by_class["matmul"] == 2 * 16 * K * N
    assert count.by_class["reduction"] == 16 * N  # each of 8 shards sends 2 x N


def test_shard_map_over_one_axis_leaves_the_other_whole():
    sharded = jax.shard_map(
        matmul,
        mesh=mesh(4, 2),
        in_specs=(P("client"), P()),
        out_specs=P("client"),
        axis_names={"client"},
    )
    assert meter.cost(jax.jit(sharded), array(16, K), array(K, N)).flops == (
        2 * 16 * K * N
    )


def test_replicated_work_is_done_on_every_shard():
    sharded = jax.shard_map(matmul, mesh=mesh(8), in_specs=P(), out_specs=P())
    assert meter.cost(sharded, array(M, K), array(K, N)).flops == 8 * MATMUL


def test_pmap_counts_every_device():
    assert meter.cost(jax.pmap(matmul), array(8, M, K), array(8, K, N)).flops == (
        8 * MATMUL
    )


def test_keyword_arguments_and_random_keys():
    def noise(key, *, shape):
        return jax.random.bits(jax.random.fold_in(key, 1), shape.shape)

    count = meter.cost(noise, jax.random.key(0), shape=array(6))
    assert count.flops == count.by_class["elementwise"] == 6


@pytest.mark.parametrize(
    ("fn", "args"),
    [
        (matmul, (array(64, 128), array(128, 32))),
        (jax.vmap(matmul), (array(4, 32, 32), array(4, 32, 32))),
        (conv, (array(4, 16, 16, 8), array(3, 3, 8, 16))),
        (
            jax.grad(lambda x, w: conv(x, w).sum(), (0, 1)),
            (array(4, 16, 16, 16), array(3, 3, 16, 16)),
        ),
        (
            jax.value_and_grad(lambda x, w: (conv(x, w, strides=(2, 2)) ** 2).sum()),
            (array(4, 17, 17, 16), array(3, 3, 16, 16)),
        ),
    ],
)
def test_xla_agrees_within_one_percent_on_programs_without_loops(fn, args):
    assert meter.cost(fn, *args).flops == pytest.approx(xla_flops(fn, *args), rel=0.01)


def test_work_that_no_output_needs_is_left_out():
    def program(x):
        _ = x @ x
        return lax.scan(lambda h, _: (h + 1.0, (h @ h).sum()), x, None, length=3)[0]

    count = meter.cost(program, array(8, 8))
    assert count.by_class["matmul"] == 0
    assert count.flops == 3 * 64


def test_flops_by_class_and_dtype():
    def program(x, w):
        product = x.astype(jnp.bfloat16) @ w
        return (product.astype(jnp.float32) > 0.0).sum(), product.argmax(1)

    count = meter.cost(program, array(M, K), array(K, N, dtype=jnp.bfloat16))
    assert count.by_class_and_dtype == {
        ("matmul", "bfloat16"): MATMUL,
        ("elementwise", "float32"): M * N,
        ("reduction", "int32"): M * N,
        ("reduction", "bfloat16"): M * N,
    }
    assert count.by_dtype["bfloat16"] == MATMUL + M * N
    assert sum(count.by_dtype.values()) == sum(count.by_class.values()) == count.flops


def test_products_count_at_the_dtype_of_the_operands_not_of_the_sum():
    def program(a, b):
        return lax.dot(a, b, preferred_element_type=jnp.int32)

    args = array(M, K, dtype=jnp.int8), array(K, N, dtype=jnp.int8)
    assert meter.cost(program, *args).by_dtype == {"int8": MATMUL}


def test_attention_and_mlp_gradient_agree_with_xla():
    def attention(q, k, v):
        return (jax.nn.relu(q @ k.T) @ v).sum()

    args = [array(64, 64)] * 3
    for fn in (attention, jax.grad(attention, (0, 1, 2))):
        assert meter.cost(fn, *args).flops == pytest.approx(
            xla_flops(fn, *args), rel=0.01
        )
