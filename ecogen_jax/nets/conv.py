"""Convolutions that stay fast on a CPU inside a compiled loop and under `vmap`.

On a CPU, XLA is fast for one form of convolution: forward, between many channels. The
gradients that JAX derives have other forms, and inside a loop body they are tens of
times slower than outside (https://github.com/jax-ml/jax/issues/12868). The grouped
convolutions that `vmap` makes of one kernel per client are as slow. Here the value and
both gradients are written with fast operations only, forward convolutions between many
channels and matrix products, and `vmap` becomes a loop over clients. Each of the three
functions is linear in both arguments, and the other two are its gradients, so gradients
of any order are exact and fast. On GPU and TPU all three are plain `lax` convolutions.

In both cases operands have the dtype of the net's precision, and results are float32
(see `precision` for the meaning of float32 on a GPU or TPU).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from ecogen_jax.nets import matrix_conv
from ecogen_jax.nets.matrix_conv import Form, beside, by_rows, by_tiles, padded
from ecogen_jax.nets.plain_conv import (
    DIMENSIONS,
    Bilinear,
    Geometry,
    kernel_gradient_pads,
    linked,
    plain,
    plain_value,
)
from ecogen_jax.nets.precision import operand_dtype
from ecogen_jax.nets.textbook import is_plain

CHUNK = 16
"""Images at a time in the kernel gradient of a convolution from many channels."""

BAND = 64
"""Most numbers in a row of outputs, for each column of the kernel, for `by_rows` in the
gradient of the images."""

LARGE = 64
"""Fewest images of a batch whose kernel gradient is made from the value's windows."""

SHORT = 140
"""Most numbers in a row of windows for `by_rows` in the value and both gradients."""


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    padding: str | tuple[tuple[int, int], tuple[int, int]] = "SAME",
) -> jax.Array:
    """Two-dimensional convolution (cross-correlation) with exact gradients.

    Args:
      x: images, `[batch, height, width, channels_in]`.
      kernel: `[rows, columns, channels_in, channels_out]`.
      stride: step of the window along both axes.
      padding: `SAME` keeps ceil(size / stride) positions, `VALID` only those where
        the window lies within the image; else the rows of zeros before and after, and
        the columns.

    Returns:
      `[batch, height_out, width_out, channels_out]`.
    """
    size, window = x.shape[1:3], kernel.shape[:2]
    if isinstance(padding, str):
        pads = lax.padtype_to_pads(size, window, (stride, stride), padding)
        rows, columns = [(int(low), int(high)) for low, high in pads]
    else:
        rows, columns = padding
    geometry = Geometry(stride, (rows, columns), size, window, operand_dtype())
    if is_plain():
        return plain(geometry, x, kernel)
    return _fast(geometry, x, kernel)


def _one_after_another(fn: Bilinear, *, joins: bool) -> Bilinear:
    """Makes `vmap` run a function in a loop.

    Measured for 8 clients, value and both gradients: the loop takes 0.02 to 0.3 of the
    time of XLA's grouped convolutions, 0.2 to 0.7 of that of batched matrix products.

    Args:
      fn: the function.
      joins: whether images that share the second array can be one larger batch.
    """

    def call(geometry: Geometry, first: jax.Array, second: jax.Array) -> jax.Array:
        one = custom_vmap(functools.partial(fn, geometry))

        @one.def_vmap
        def mapped(
            axis_size: int, batched: list[bool], first: jax.Array, second: jax.Array
        ) -> tuple[jax.Array, bool]:
            if all(batched):
                return lax.map(lambda pair: one(*pair), (first, second)), True
            if batched[1]:
                return lax.map(lambda single: one(first, single), second), True
            if not joins:
                return lax.map(lambda single: one(single, second), first), True
            joined = one(first.reshape(-1, *first.shape[2:]), second)
            return joined.reshape(axis_size, -1, *joined.shape[1:]), True

        return one(first, second)

    return call


def _value(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    if not _is_narrow(kernel.shape):
        return plain_value(geometry, x, kernel)
    return matrix_conv.value(_form(geometry, len(x), kernel.shape), x, kernel)


def _is_narrow(kernel: tuple[int, ...]) -> bool:
    """Whether XLA's forward convolution loses against matrix products over windows.

    Measured on one core: it is 1.5 to 12 times slower from 1 to 6 channels, between
    1.6 times slower and 1.7 times faster at 8, and 2 to 4 times faster from 16 on.
    """
    return kernel[2] < 8


def _is_short(geometry: Geometry, kernel: tuple[int, ...]) -> bool:
    """Whether whole rows are the fastest windows: few numbers, few channels come out.

    Measured on one core with 128 images: value and both gradients take 0.7 to 0.95 of
    the time of tiles, and 1.1 where a row of windows has 336 numbers.
    """
    rows, _, inputs, outputs = kernel
    return rows * geometry.size[1] * inputs <= SHORT and outputs <= 8


def _form(geometry: Geometry, batch: int, kernel: tuple[int, ...]) -> Form:
    """The fastest windows of a narrow convolution.

    A larger tile makes rows longer, and multiplies by more zeros: one of 2 x 2 does
    (rows + stride) (columns + stride) / (rows columns) times the work. Measured on one
    core with 32 to 500 images: above twice the work, single outputs take 0.3 to 1.0 of
    the time of 2 x 2 from three channels on. The fewer channels come out, the larger
    the tile that pays for its zeros.
    """
    if _is_short(geometry, kernel):
        return by_rows(geometry, batch, kernel)
    rows, columns, channels, outputs = kernel
    stride = geometry.stride
    if channels > 2 and (rows + stride) * (columns + stride) > 2 * rows * columns:
        return by_tiles(geometry, batch, kernel, 1)
    side = 4 if stride == 1 and outputs < 8 else 2
    return by_tiles(geometry, batch, kernel, side)


def _input_gradient(
    geometry: Geometry, cotangent: jax.Array, kernel: jax.Array
) -> jax.Array:
    """Short rows; else blocks, rows or patches, or the flipped kernel's correlation.

    Patches are tiles of one output. Measured on one core with 32 to 128 images: blocks
    take 0.3 to 1.0 of the time of patches where few channels meet few, but 1.4 from one
    to 16, and up to 4 times as long elsewhere. With rows, value and gradients of a
    layer of images up to 32 wide take 0.6 to 0.95 of the time with patches up to
    `BAND`, and 1.0 to 1.5 beyond.
    """
    inputs, outputs = kernel.shape[2:]
    stride, narrow = geometry.stride, _is_narrow(kernel.shape)
    few = inputs <= 8 and outputs <= 16 and outputs < 16 * inputs
    if narrow and _is_short(geometry, kernel.shape):
        form = by_rows(geometry, len(cotangent), kernel.shape)
    elif stride > 1 and few:
        return _by_block(geometry, cotangent, kernel)
    elif stride == 1 and not narrow:
        return _correlated(geometry, cotangent, kernel)
    elif stride == 1 and cotangent.shape[2] * outputs <= BAND * geometry.window[1]:
        form = by_rows(geometry, len(cotangent), kernel.shape)
    else:
        form = by_tiles(geometry, len(cotangent), kernel.shape, 1)
    return matrix_conv.input_gradient(form, cotangent, kernel)


def _correlated(
    geometry: Geometry, cotangent: jax.Array, kernel: jax.Array
) -> jax.Array:
    """The cotangent correlated with the flipped kernel, for a stride of 1."""
    mirrored = [
        (length - 1 - low, length - 1 - high)
        for length, (low, high) in zip(geometry.window, geometry.pads, strict=True)
    ]
    size = cotangent.shape[1:3]
    rows, columns = mirrored
    back = Geometry(1, (rows, columns), size, geometry.window, geometry.dtype)
    return _value(back, cotangent, kernel[::-1, ::-1].swapaxes(2, 3))


def _kernel_gradient(
    geometry: Geometry, x: jax.Array, cotangent: jax.Array
) -> jax.Array:
    """From the windows of the value, or that of `plain_conv` with its axes moved.

    Measured on one core with 128 images: with the windows, value and both gradients
    take 0.75 to 0.95 of the time where few channels meet up to 8, and more than 1 where
    they meet 16; with 32 images, 0.8 to 1.2.
    """
    batch, channels, outputs = x.shape[0], x.shape[3], cotangent.shape[3]
    kernel = (*geometry.window, channels, outputs)
    if _is_narrow(kernel) and outputs <= 8 and batch >= LARGE:
        form = _form(geometry, batch, kernel)
        return matrix_conv.kernel_gradient(form, x, cotangent)
    if channels >= 128 and batch > CHUNK and batch % CHUNK == 0:
        # A whole batch does not fit into the caches: measured 1.3 to 1.7 times slower.
        chunks = [a.reshape(-1, CHUNK, *a.shape[1:]) for a in (x, cotangent)]
        return jnp.sum(lax.map(lambda c: _kernel_gradient(geometry, *c), chunks), 0)
    gradient = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        cotangent.transpose(1, 2, 0, 3),
        (1, 1),
        kernel_gradient_pads(geometry, cotangent),
        rhs_dilation=(geometry.stride, geometry.stride),
        dimension_numbers=DIMENSIONS,
        preferred_element_type=jnp.float32,
    )
    return gradient.transpose(1, 2, 0, 3)


_fast = linked(
    _one_after_another(_value, joins=True),
    _one_after_another(_input_gradient, joins=True),
    _one_after_another(_kernel_gradient, joins=False),
)


def _by_block(geometry: Geometry, cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    """One matrix product: each block of stride x stride inputs from all that it fed.

    Along an axis, input `p` of block `p // stride` met the kernel's tap
    `p + low - stride o` in output `o`, so a block has fed few outputs next to each
    other, the same ones relative to it for all blocks.
    """
    batch, *positions, outputs = cotangent.shape
    inputs, stride = kernel.shape[2], geometry.stride
    axes = list(zip(geometry.window, geometry.pads, strict=True))
    first = [-((length - 1 - low) // stride) for length, (low, _) in axes]
    last = [(stride - 1 + low) // stride for _, (low, _) in axes]
    reach = [end - begin + 1 for begin, end in zip(first, last, strict=True)]
    blocks = [-(-size // stride) for size in geometry.size]
    ends = [
        count + end - position
        for count, end, position in zip(blocks, last, positions, strict=True)
    ]
    fed = padded(cotangent, 1, [-begin for begin in first], ends)
    windows = [
        lax.slice(fed, (0, i, j, 0), (batch, i + blocks[0], j + blocks[1], outputs))
        for i in range(reach[0])
        for j in range(reach[1])
    ]
    flat = jnp.concatenate(windows, -1).reshape(-1, reach[0] * reach[1] * outputs)
    # Reversed, so that taps increase with outputs; then an input's place in its block.
    lows = [stride - 1 - (length - 1 - low) % stride for length, (low, _) in axes]
    highs = [
        count * stride - low - length
        for count, low, (length, _) in zip(reach, lows, axes, strict=True)
    ]
    taps = padded(kernel[::-1, ::-1], 0, lows, highs)
    taps = taps.reshape(reach[0], stride, reach[1], stride, inputs, outputs)
    matrix = taps[:, ::-1, :, ::-1].transpose(0, 2, 5, 1, 3, 4)
    product = jnp.matmul(
        flat,
        matrix.reshape(-1, stride * stride * inputs),
        preferred_element_type=jnp.float32,
    )
    tiles = product.reshape(batch, *blocks, stride, stride, inputs)
    return beside(tiles, geometry.size)
