"""The fast convolution is the plain one, value and gradients, wherever it stands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from ecogen_jax import mesh
from ecogen_jax.nets.conv import conv, upsample

# height, width, kernel size, stride, channels in, channels out
GRID = [
    (8, 8, 3, 1, 1, 4),
    (7, 5, 3, 1, 3, 2),
    (6, 9, 5, 1, 2, 1),
    (5, 6, 2, 1, 2, 3),
    (4, 4, 1, 1, 3, 5),
    (8, 8, 3, 2, 1, 4),
    (7, 5, 3, 2, 3, 2),
    (9, 6, 5, 2, 2, 3),
    (7, 8, 3, 3, 1, 2),
    (6, 7, 1, 2, 4, 1),
    (1, 3, 3, 2, 2, 2),
]


def plain(x, kernel, stride):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def fast(x, kernel, stride):
    return conv(x, kernel, stride=stride)


def value_and_gradients(fn, stride):
    """Value, input gradient and kernel gradient, given the cotangent."""

    def both(x, kernel, cotangent):
        value, pullback = jax.vjp(lambda x, k: fn(x, k, stride), x, kernel)
        return value, *pullback(cotangent)

    return both


def arrays(case, leading=()):
    height, width, size, stride, inputs, outputs = case
    rng = np.random.default_rng(sum(case))
    shapes = [
        (2, height, width, inputs),
        (size, size, inputs, outputs),
        (2, -(-height // stride), -(-width // stride), outputs),
    ]
    return [
        jnp.asarray(rng.normal(size=(*leading, *shape)), jnp.float32)
        for shape in shapes
    ]


def assert_close(ours, theirs):
    """To 1e-5 of the largest entry: single entries may cancel to almost nothing."""
    for our, their in zip(ours, theirs, strict=True):
        assert our.shape == their.shape
        error = np.max(np.abs(np.asarray(our) - np.asarray(their)))
        assert error <= 1e-5 * np.max(np.abs(np.asarray(their)))


@pytest.mark.parametrize("case", GRID, ids=str)
def test_value_and_gradients_are_those_of_the_plain_convolution(case):
    stride = case[3]

    @jax.jit
    def both(*inputs):
        return [value_and_gradients(fn, stride)(*inputs) for fn in (fast, plain)]

    assert_close(*both(*arrays(case)))


@pytest.mark.parametrize("stride", [1, 2])
def test_under_vmap_each_client_has_its_own_kernel(stride):
    x, kernels, cotangents = arrays((7, 6, 3, stride, 2, 3), leading=(3,))
    mapped = jax.jit(jax.vmap(value_and_gradients(fast, stride), in_axes=(None, 0, 0)))
    one = jax.jit(value_and_gradients(plain, stride))
    results = mapped(x[0], kernels, cotangents)
    for client in range(3):
        expected = one(x[0], kernels[client], cotangents[client])
        assert_close([r[client] for r in results], expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_training_inside_a_scan_follows_the_plain_convolution(stride):
    x, kernel, target = arrays((6, 5, 3, stride, 2, 3))

    def train(fn):
        def loss(kernel):
            return jnp.mean(jnp.square(fn(x, kernel, stride) - target))

        def step(kernel, _):
            value, grad = jax.value_and_grad(loss)(kernel)
            return kernel - 0.1 * grad, value

        return jax.jit(lambda k: lax.scan(step, k, None, length=5))(kernel)

    assert_close(train(fast), train(plain))
    losses = train(fast)[1]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("stride", [1, 2])
def test_inside_shard_map_each_device_has_its_own_kernels(stride):
    inputs = arrays((6, 5, 3, stride, 2, 3), leading=(4,))

    def on_one_device(*inputs):
        return lax.map(lambda one: value_and_gradients(fast, stride)(*one), inputs)

    spec = PartitionSpec("client")
    sharded = jax.shard_map(
        on_one_device, mesh=mesh.client_mesh(4, 2), in_specs=spec, out_specs=spec
    )
    expected = jax.jit(jax.vmap(value_and_gradients(plain, stride)))(*inputs)
    assert_close(jax.jit(sharded)(*inputs), expected)


def convolutions(jaxpr):
    """Parameters of every convolution in a jaxpr and those inside it."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield equation.params
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
        ):
            if hasattr(inner, "eqns"):
                yield from convolutions(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize(("stride", "expected"), [(1, 3), (2, 0)])
def test_the_compiler_sees_only_what_it_is_fast_at(stride, expected):
    inputs = arrays((6, 6, 3, stride, 2, 3))
    found = list(
        convolutions(
            jax.make_jaxpr(value_and_gradients(fast, stride))(*inputs).jaxpr,
        )
    )
    assert len(found) == expected
    for params in found:
        assert params["window_strides"] == (1, 1)
        assert params["lhs_dilation"] == params["rhs_dilation"] == (1, 1)
        assert params["batch_group_count"] == params["feature_group_count"] == 1


def test_an_accelerator_gets_the_plain_convolution(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x, kernel, _ = arrays((6, 5, 3, 2, 2, 3))
    jaxpr = jax.make_jaxpr(lambda x, k: fast(x, k, 2))(x, kernel).jaxpr
    assert [p["window_strides"] for p in convolutions(jaxpr)] == [(2, 2)]
    assert_close([fast(x, kernel, 2)], [plain(x, kernel, 2)])


def test_upsampling_repeats_every_pixel():
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    rows = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    np.testing.assert_array_equal(upsample(x)[0, :, :, 0], rows)
    assert upsample(jnp.zeros((2, 3, 1, 4)), factor=3).shape == (2, 9, 3, 4)
