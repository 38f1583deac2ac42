"""The fast convolution is the plain one, value and gradients, wherever it stands."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from ecogen_jax import mesh
from ecogen_jax.energy import meter
from ecogen_jax.nets.conv import CHUNK, LARGE, conv
from ecogen_jax.nets.textbook import textbook
from tests import toy_nets

# height, width, kernel rows and columns, stride, padding, channels in, channels out
GRID = [
    (9, 7, 5, 5, 1, "SAME", 1, 6),
    (10, 9, 5, 5, 1, "VALID", 6, 16),
    (8, 8, 3, 3, 1, "SAME", 1, 9),
    (7, 5, 3, 3, 1, "VALID", 17, 18),
    (7, 5, 3, 3, 1, "SAME", 16, 16),
    (6, 6, 3, 3, 1, "SAME", 20, 3),
    (6, 7, 2, 3, 1, "SAME", 16, 17),
    (5, 6, 2, 2, 1, "SAME", 2, 3),
    (5, 6, 4, 2, 1, "VALID", 4, 1),
    (4, 4, 1, 1, 1, "SAME", 3, 5),
    (8, 8, 3, 3, 2, "SAME", 1, 8),
    (7, 5, 3, 3, 2, "SAME", 16, 20),
    (9, 6, 5, 5, 2, "VALID", 2, 3),
    (8, 6, 2, 2, 2, "VALID", 3, 2),
    (7, 8, 3, 3, 3, "SAME", 1, 2),
    (7, 8, 2, 2, 3, "VALID", 16, 2),
    (6, 7, 1, 1, 2, "SAME", 4, 1),
    (1, 3, 3, 3, 2, "SAME", 2, 2),
    (5, 6, 2, 2, 1, ((1, 0), (0, 1)), 2, 3),
    (6, 4, 2, 3, 2, ((0, 1), (2, 0)), 16, 4),
    (6, 5, 4, 3, 2, ((2, 1), (0, 2)), 3, 5),
    (2, 3, 5, 5, 1, "SAME", 1, 6),
    (5, 4, 2, 2, 1, ((3, 2), (0, 3)), 2, 3),
    (7, 5, 3, 2, 1, "SAME", 2, 30),
    (6, 28, 3, 3, 1, "SAME", 2, 3),
    (7, 16, 3, 3, 2, "SAME", 3, 4),
    (8, 30, 5, 5, 2, "VALID", 1, 4),
    (5, 24, 3, 3, 1, ((2, 0), (0, 1)), 3, 2),
]
SOME = [GRID[7], GRID[3], GRID[11]]
WIDE = GRID[-4:-1]
"""Too wide for windows of whole rows: tiles of 4 x 4, 1 x 1 and 2 x 2 outputs."""


def plain(x, kernel, stride, padding):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def fast(x, kernel, stride, padding):
    return conv(x, kernel, stride=stride, padding=padding)


def accelerated(x, kernel, stride, padding):
    """What a GPU runs, and what is counted."""
    with textbook(True):
        return fast(x, kernel, stride, padding)


FORMS = [(fast, 2), (fast, LARGE), (accelerated, 2)]


def value_and_gradients(fn, case):
    """Value, input gradient and kernel gradient, given the cotangent."""
    stride, padding = case[4:6]

    def both(x, kernel, cotangent):
        value, pullback = jax.vjp(lambda x, k: fn(x, k, stride, padding), x, kernel)
        return value, *pullback(cotangent)

    return both


def arrays(case, leading=(), batch=2):
    height, width, rows, columns, stride, padding, inputs, outputs = case
    rng = np.random.default_rng(height + width + inputs + outputs)
    x = jax.ShapeDtypeStruct((batch, height, width, inputs), jnp.float32)
    kernel = jax.ShapeDtypeStruct((rows, columns, inputs, outputs), jnp.float32)
    value = jax.eval_shape(lambda x, k: plain(x, k, stride, padding), x, kernel)
    return [
        jnp.asarray(rng.normal(size=(*leading, *array.shape)), jnp.float32)
        for array in (x, kernel, value)
    ]


def assert_close(ours, theirs):
    """To 1e-5 of the largest entry: single entries may cancel to almost nothing."""
    for our, their in zip(ours, theirs, strict=True):
        assert our.shape == their.shape
        error = np.max(np.abs(np.asarray(our) - np.asarray(their)))
        assert error <= 1e-5 * np.max(np.abs(np.asarray(their)))


@pytest.mark.parametrize("batch", [2, LARGE])
@pytest.mark.parametrize("case", GRID, ids=str)
def test_value_and_gradients_are_those_of_the_plain_convolution(case, batch):
    @jax.jit
    def each(*inputs):
        forms = (fast, accelerated, plain)
        return [value_and_gradients(fn, case)(*inputs) for fn in forms]

    ours, on_gpu, theirs = each(*arrays(case, batch=batch))
    assert_close(ours, theirs)
    assert_close(on_gpu, theirs)


def in_bf16(fn):
    """A form of the convolution as a net in bf16 runs it."""

    def convolve(x, kernel, stride, padding):
        fixed = functools.partial(fn, stride=stride, padding=padding)
        return toy_nets.at("bf16", fixed)(x, kernel)

    return convolve


@pytest.mark.parametrize(("form", "batch"), FORMS)
@pytest.mark.parametrize("case", [*SOME, GRID[0], GRID[10], *WIDE], ids=str)
def test_in_bf16_only_the_operands_are_rounded(case, form, batch):
    inputs = arrays(case, batch=batch)
    rounded = [a.astype(jnp.bfloat16).astype(jnp.float32) for a in inputs]
    found = jax.jit(value_and_gradients(in_bf16(form), case))(*inputs)
    assert {a.dtype for a in found} == {jnp.dtype("float32")}
    assert_close(found, jax.jit(value_and_gradients(plain, case))(*rounded))


@pytest.mark.parametrize("batch", [2 * CHUNK, CHUNK + 1])
def test_from_many_channels_the_gradient_adds_up_all_chunks_of_the_batch(batch):
    case = (4, 3, 3, 3, 1, "SAME", 128, 2)
    inputs = arrays(case, batch=batch)
    ours, theirs = (jax.jit(value_and_gradients(fn, case)) for fn in (fast, plain))
    assert_close(ours(*inputs), theirs(*inputs))


BATCHES = [(SOME[0], 2), (SOME[0], LARGE), (SOME[1], 2), (WIDE[0], LARGE)]
SHARED = [(0, 0, 0), (None, 0, 0), (0, None, 0), (0, 0, None)]


@pytest.mark.parametrize("axes", SHARED, ids=str)
@pytest.mark.parametrize(("case", "batch"), BATCHES, ids=str)
def test_under_vmap_each_client_gets_what_it_gets_alone(case, batch, axes):
    given = arrays(case, leading=(3,), batch=batch)
    inputs = [a if axis == 0 else a[0] for a, axis in zip(given, axes, strict=True)]
    results = jax.jit(jax.vmap(value_and_gradients(fast, case), axes))(*inputs)
    one = jax.jit(value_and_gradients(plain, case))
    for client in range(3):
        own = [
            a if axis is None else a[client]
            for a, axis in zip(inputs, axes, strict=True)
        ]
        assert_close([r[client] for r in results], one(*own))


def test_under_two_vmaps_each_client_of_each_seed_gets_what_it_gets_alone():
    case = GRID[3]
    inputs = arrays(case, leading=(2, 3))
    over_clients = jax.vmap(value_and_gradients(fast, case), (0, None, 0))
    results = jax.jit(jax.vmap(over_clients))(inputs[0], inputs[1][:, 0], inputs[2])
    one = jax.jit(value_and_gradients(plain, case))
    for seed, client in [(0, 0), (0, 2), (1, 1)]:
        own = inputs[0][seed, client], inputs[1][seed, 0], inputs[2][seed, client]
        assert_close([r[seed, client] for r in results], one(*own))


@pytest.mark.parametrize(("form", "batch"), FORMS)
@pytest.mark.parametrize("case", [SOME[0], SOME[2], WIDE[0]], ids=str)
def test_the_gradient_of_a_gradient_is_that_of_the_plain_convolution(case, form, batch):
    x, kernel, weights = arrays(case, batch=batch)

    def second(fn):
        def penalty(x, kernel):
            def energy(x, kernel):
                return jnp.sum(jnp.sin(fn(x, kernel, *case[4:6])) * weights)

            of_x, of_kernel = jax.grad(energy, (0, 1))(x, kernel)
            return jnp.sum(jnp.square(of_x)) + jnp.sum(jnp.square(of_kernel))

        return jax.jit(jax.grad(penalty, (0, 1)))(x, kernel)

    assert_close(second(form), second(plain))


@pytest.mark.parametrize("case", SOME, ids=str)
def test_training_inside_a_scan_follows_the_plain_convolution(case):
    x, kernel, target = arrays(case)

    def train(fn):
        def loss(kernel):
            return jnp.mean(jnp.square(fn(x, kernel, *case[4:6]) - target))

        def step(kernel, _):
            value, grad = jax.value_and_grad(loss)(kernel)
            return kernel - 0.1 * grad, value

        return jax.jit(lambda k: lax.scan(step, k, None, length=5))(kernel)

    ours = train(fast)
    assert_close(ours, train(plain))
    assert ours[1][-1] < ours[1][0]


@pytest.mark.parametrize(("case", "batch"), [*BATCHES, (SOME[2], 2)], ids=str)
def test_inside_shard_map_each_device_has_its_own_kernels(case, batch):
    inputs = arrays(case, leading=(4,), batch=batch)

    def on_one_device(*inputs):
        return lax.map(lambda one: value_and_gradients(fast, case)(*one), inputs)

    spec = PartitionSpec("client")
    sharded = jax.shard_map(
        on_one_device, mesh=mesh.client_mesh(4, 2), in_specs=spec, out_specs=spec
    )
    expected = jax.jit(jax.vmap(value_and_gradients(plain, case)))(*inputs)
    assert_close(jax.jit(sharded)(*inputs), expected)


def compiled(fn, case, leading=(), batch=2):
    """What the compiler makes of a scan over value and gradients."""

    def body(carry, _):
        value, grad_x, grad_kernel = fn(*carry)
        x, kernel, cotangent = carry
        return (x + grad_x, kernel + grad_kernel, cotangent + value), None

    program = jax.jit(lambda carry: lax.scan(body, carry, None, length=2)[0])
    return program.lower(tuple(arrays(case, leading, batch))).compile().as_text()


def compiled_convolutions(*given, **how):
    """The convolutions in it."""
    return re.findall(r" convolution\(.*", compiled(*given, **how))


def is_fast(convolution):
    """Whether XLA's CPU backend has a fast path for it inside a loop."""
    slow = ("lhs_dilate", "rhs_reversal", "feature_group", "batch_group")
    return "b01f_01io->b01f" in convolution and not any(s in convolution for s in slow)


@pytest.mark.parametrize(("case", "expected"), list(zip(SOME, (1, 3, 2), strict=True)))
def test_inside_a_loop_the_compiler_sees_only_what_it_is_fast_at(case, expected):
    ours = compiled_convolutions(value_and_gradients(fast, case), case)
    assert len(ours) == expected
    assert all(map(is_fast, ours))
    theirs = compiled_convolutions(value_and_gradients(plain, case), case)
    assert len(theirs) == 3
    assert sum(map(is_fast, theirs)) == 1


@pytest.mark.parametrize(
    ("case", "width"), list(zip([SOME[0], *WIDE], (24, 72, 27, 49), strict=True))
)
def test_value_and_kernel_gradient_of_a_large_batch_share_their_windows(case, width):
    text = compiled(value_and_gradients(fast, case), case, batch=LARGE)
    assert " convolution(" not in text
    assert len(re.findall(r" dot\(", text)) == 3
    windows = re.findall(rf"f32\[{LARGE},[\d,]*\b{width}\]\S* concatenate\(", text)
    assert len(windows) == 1


def test_under_vmap_the_compiler_sees_no_grouped_convolution():
    case = SOME[1]
    counts = {}
    for fn in (fast, plain):
        mapped = jax.vmap(value_and_gradients(fn, case))
        found = compiled_convolutions(mapped, case, leading=(2,))
        counts[fn] = (len(found), sum(map(is_fast, found)))
    assert counts == {fast: (3, 3), plain: (3, 0)}


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


def test_an_accelerator_gets_the_plain_convolution(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    case = (8, 8, 3, 3, 2, "SAME", 1, 8)
    x, kernel, _ = arrays(case)
    jaxpr = jax.make_jaxpr(lambda x, k: fast(x, k, 2, "SAME"))(x, kernel).jaxpr
    assert [p["window_strides"] for p in convolutions(jaxpr)] == [(2, 2)]
    assert_close([fast(x, kernel, 2, "SAME")], [plain(x, kernel, 2, "SAME")])


def test_operations_are_counted_as_in_the_textbook():
    case = GRID[0]
    height, width, rows, columns, _, _, inputs, outputs = case

    def step(carry, _):
        return carry, value_and_gradients(fast, case)(*carry)

    def program(*arrays):
        return lax.scan(step, arrays, None, length=7)[1]

    def conv_flops():
        cost = meter.cost(program, *arrays(case))
        kinds = ("conv", "matmul")
        return sum(
            n for (kind, _), n in cost.by_class_and_dtype.items() if kind in kinds
        )

    once = 2 * 2 * height * width * rows * columns * inputs * outputs
    assert conv_flops() == 7 * 3 * once
    # The program that runs is none the plainer for it: matrix products stand for the
    # value and the gradient of the images.
    compiled = jax.make_jaxpr(program)(*arrays(case))
    assert len(list(convolutions(compiled.jaxpr))) == 1
