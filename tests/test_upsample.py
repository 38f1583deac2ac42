"""What was upsampled is convolved at the smaller size, with the same result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.energy import meter
from ecogen_jax.nets.conv import conv
from ecogen_jax.nets.textbook import textbook
from ecogen_jax.nets.upsample import conv_upsampled, interleave, upsample

# batch, height, width, channels in, channels out
GRID = [(2, 3, 5, 2, 3), (3, 4, 4, 16, 9), (2, 1, 2, 3, 8), (32, 3, 2, 128, 4)]


def arrays(case, clients=()):
    batch, height, width, inputs, outputs = case
    shapes = [
        (batch, height, width, inputs),
        (3, 3, inputs, outputs),
        (batch, 2 * height, 2 * width, outputs),
    ]
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=clients + s), jnp.float32) for s in shapes]


def value_and_gradients(fn, x, kernel, cotangent):
    value, pullback = jax.vjp(fn, x, kernel)
    return value, *pullback(cotangent)


def after_upsampling(x, kernel):
    return conv(upsample(x), kernel)


def assert_close(found, expected):
    for each, other in zip(found, expected, strict=True):
        assert each.shape == other.shape
        scale = float(jnp.abs(other).max())
        np.testing.assert_allclose(each, other, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("case", GRID)
def test_it_is_the_convolution_of_the_upsampled(case):
    found, expected = (
        value_and_gradients(fn, *arrays(case))
        for fn in (conv_upsampled, after_upsampling)
    )
    assert_close(found, expected)


def test_it_is_the_same_for_a_kernel_of_each_client():
    def of_all(fn):
        one = jax.vmap(lambda *each: value_and_gradients(fn, *each))
        return one(*arrays(GRID[0], clients=(3,)))

    assert_close(of_all(conv_upsampled), of_all(after_upsampling))


def test_another_window_is_refused():
    x, _, _ = arrays(GRID[0])
    with pytest.raises(ValueError, match=r"window .* \(5, 5\).*conv\(upsample"):
        conv_upsampled(x, jnp.zeros((5, 5, 2, 3)))


def test_operations_are_counted_as_in_the_textbook_and_fewer_are_done():
    case = GRID[1]
    batch, height, width, inputs, outputs = case
    x, kernel, _ = arrays(case)
    once = 2 * batch * height * width * 4 * inputs * outputs * 9
    assert meter.cost(conv_upsampled, x, kernel).by_class["conv"] == once
    with textbook(True):
        assert len(shapes_convolved(conv_upsampled, x, kernel)) == 1
    smaller = shapes_convolved(conv_upsampled, x, kernel)
    assert smaller == [(x.shape, (2, 2, inputs, outputs))] * 4


def shapes_convolved(fn, *inputs):
    """Shapes of images and kernel of every convolution that is traced."""

    def inner(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "conv_general_dilated":
                yield tuple(var.aval.shape for var in equation.invars)
            for value in equation.params.values():
                nested = getattr(value, "jaxpr", value)
                if hasattr(nested, "eqns"):
                    yield from inner(nested)

    return list(inner(jax.make_jaxpr(fn)(*inputs).jaxpr))


def test_upsampling_repeats_every_pixel():
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    rows = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    np.testing.assert_array_equal(upsample(x)[0, :, :, 0], rows)
    assert upsample(jnp.zeros((2, 3, 1, 4)), factor=3).shape == (2, 9, 3, 4)


def test_interleaving_puts_four_channels_into_a_block():
    x = np.arange(2 * 3 * 2 * 8).reshape(2, 3, 2, 8)
    out = np.asarray(interleave(jnp.asarray(x)))
    assert out.shape == (2, 6, 4, 2)
    for row in range(2):
        for column in range(2):
            block = 2 * (2 * row + column)
            np.testing.assert_array_equal(
                out[:, row::2, column::2], x[..., block : block + 2]
            )
