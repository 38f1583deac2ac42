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
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

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
"""Most numbers in a row of outputs, for each column of the kernel, for `_by_row`."""


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
    if not _is_narrow(kernel):
        return plain_value(geometry, x, kernel)
    return _tiled(x, kernel, geometry, _side(kernel, geometry.stride))


def _side(kernel: jax.Array, stride: int) -> int:
    """Outputs along both axes of the tile that is fastest.

    A larger tile makes rows longer, and multiplies by more zeros: one of 2 x 2 does
    (rows + stride) (columns + stride) / (rows columns) times the work. Measured on one
    core with 32 to 500 images: above twice the work, single outputs take 0.3 to 1.0 of
    the time of 2 x 2 from three channels on. The fewer channels come out, the larger
    the tile that pays for its zeros.
    """
    rows, columns, channels, outputs = kernel.shape
    if channels > 2 and (rows + stride) * (columns + stride) > 2 * rows * columns:
        return 1
    return 4 if stride == 1 and outputs < 8 else 2


def _is_narrow(kernel: jax.Array) -> bool:
    """Whether XLA's forward convolution loses against matrix products over patches.

    Measured on one core: it is 1.5 to 12 times slower from 1 to 6 channels, between
    1.6 times slower and 1.7 times faster at 8, and 2 to 4 times faster from 16 on.
    """
    return kernel.shape[2] < 8


def _input_gradient(
    geometry: Geometry, cotangent: jax.Array, kernel: jax.Array
) -> jax.Array:
    """Blocks, rows or patches added up, or the flipped kernel's correlation.

    Measured on one core with 32 to 128 images: blocks take 0.3 to 1.0 of the time of
    patches where few channels meet few, but 1.4 from one to 16, and up to 4 times as
    long elsewhere. With rows, value and gradients of a layer of images up to 32 wide
    take 0.6 to 0.95 of the time with patches up to `BAND`, and 1.0 to 1.5 beyond.
    """
    inputs, outputs = kernel.shape[2:]
    if geometry.stride > 1 and inputs <= 8 and outputs <= 16 and outputs < 16 * inputs:
        return _by_block(geometry, cotangent, kernel)
    if geometry.stride > 1 or _is_narrow(kernel):
        short = cotangent.shape[2] * outputs <= BAND * geometry.window[1]
        fn = _by_row if geometry.stride == 1 and short else _overlap_add
        return fn(geometry, cotangent, kernel)
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
    """That of `plain_conv`, its axes moved to where XLA is fast."""
    batch, channels = x.shape[0], x.shape[3]
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


def _tiled(x: jax.Array, kernel: jax.Array, geometry: Geometry, side: int) -> jax.Array:
    """One matrix product: input windows of output tiles by a block Toeplitz matrix.

    One row a pixel would be too short to be fast where channels are few. A tile of
    `side` x `side` outputs makes it longer, and copies each input pixel less often.
    """
    batch, outputs, step = x.shape[0], kernel.shape[3], side * geometry.stride
    axes = list(zip(geometry.size, geometry.window, geometry.pads, strict=True))
    lengths = [
        (size + sum(pads) - length) // geometry.stride + 1
        for size, length, pads in axes
    ]
    tiles = [-(-length // side) for length in lengths]
    reach = (side - 1) * geometry.stride
    # The last tiles may extend beyond the padded image (the excess is cut off below)
    # or leave pixels uncovered.
    ends = [
        (count - 1) * step + reach + length - size - low
        for count, (size, length, (low, _)) in zip(tiles, axes, strict=True)
    ]
    x = _padded(x, 1, [low for low, _ in geometry.pads], ends)
    spans = [(count - 1) * step + 1 for count in tiles]
    windows = [
        lax.slice(
            x,
            (0, i, j, 0),
            (batch, i + spans[0], j + spans[1], x.shape[3]),
            (1, step, step, 1),
        )
        for i in range(reach + geometry.window[0])
        for j in range(reach + geometry.window[1])
    ]
    flat = jnp.concatenate(windows, -1).reshape(batch * tiles[0] * tiles[1], -1)
    matrix = _toeplitz(kernel, geometry.stride, side)
    product = jnp.matmul(flat, matrix, preferred_element_type=jnp.float32)
    return _laid_out(product.reshape(batch, *tiles, side, side, outputs), lengths)


def _laid_out(tiles: jax.Array, lengths: Sequence[int]) -> jax.Array:
    """Puts tiles `[batch, rows, columns, side, side, channels]` beside each other."""
    batch, rows, columns, side, _, channels = tiles.shape
    y = tiles.transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(batch, rows * side, columns * side, channels)
    return y[:, : lengths[0], : lengths[1]]


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
    fed = _padded(cotangent, 1, [-begin for begin in first], ends)
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
    taps = _padded(kernel[::-1, ::-1], 0, lows, highs)
    taps = taps.reshape(reach[0], stride, reach[1], stride, inputs, outputs)
    matrix = taps[:, ::-1, :, ::-1].transpose(0, 2, 5, 1, 3, 4)
    product = jnp.matmul(
        flat,
        matrix.reshape(-1, stride * stride * inputs),
        preferred_element_type=jnp.float32,
    )
    tiles = product.reshape(batch, *blocks, stride, stride, inputs)
    return _laid_out(tiles, geometry.size)


def _by_row(geometry: Geometry, cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    """One matrix product: each row of outputs gives its part of all rows that it saw.

    Few parts are left to add up, with long rows. XLA computes such sums within what
    comes next, one pixel at a time, and patches have a part for each tap.
    """
    batch, height, width, outputs = cotangent.shape
    rows, columns, inputs, _ = kernel.shape
    above, before = (low for low, _ in geometry.pads)
    more_rows, more_columns = geometry.size[0] - height, geometry.size[1] - columns
    taps = kernel.transpose(3, 0, 1, 2)
    bands = [
        _padded(taps, 2, (at - before, 0), (more_columns - at + before, 0))
        for at in range(width)
    ]
    product = jnp.matmul(
        cotangent.reshape(batch * height, width * outputs),
        jnp.stack(bands).reshape(width * outputs, -1),
        preferred_element_type=jnp.float32,
    )
    parts = product.reshape(batch, height, rows, -1)
    placed = [
        _padded(parts[:, :, row], 1, (row - above, 0), (more_rows - row + above, 0))
        for row in range(rows)
    ]
    return functools.reduce(jnp.add, placed).reshape(batch, *geometry.size, inputs)


def _padded(
    array: jax.Array, axis: int, lows: Sequence[int], highs: Sequence[int]
) -> jax.Array:
    """Adds zeros before and after two neighbouring axes; less than none cuts off."""
    borders = [(0, 0, 0)] * array.ndim
    borders[axis], borders[axis + 1] = (
        (low, high, 0) for low, high in zip(lows, highs, strict=True)
    )
    return lax.pad(array, jnp.zeros((), array.dtype), borders)


def _overlap_add(
    geometry: Geometry, cotangent: jax.Array, kernel: jax.Array
) -> jax.Array:
    """One matrix product gives all patches, each tap of which is added in its place."""
    batch, *positions, outputs = cotangent.shape
    product = jnp.matmul(
        cotangent.reshape(-1, outputs),
        kernel.reshape(-1, outputs).T,
        preferred_element_type=jnp.float32,
    )
    patches = product.reshape(batch, *positions, *geometry.window, -1)
    blank = jnp.zeros((), patches.dtype)

    def placed(*tap: int) -> jax.Array:
        borders = []
        for axis, (low, _) in enumerate(geometry.pads):
            start = tap[axis] - low
            span = (positions[axis] - 1) * geometry.stride + 1
            end = geometry.size[axis] - start - span
            borders.append((start, end, geometry.stride - 1))
        part = patches[:, :, :, tap[0], tap[1]]
        return lax.pad(part, blank, [(0, 0, 0), *borders, (0, 0, 0)])

    taps = itertools.product(*map(range, geometry.window))
    return functools.reduce(jnp.add, [placed(*tap) for tap in taps])


def _toeplitz(kernel: jax.Array, stride: int, side: int) -> jax.Array:
    """The kernel once for each output of a tile, `[window pixels, tile outputs]`."""
    rows, columns, channels, outputs = kernel.shape
    reach = (side - 1) * stride
    placed = [
        jnp.pad(
            kernel,
            [
                (i * stride, reach - i * stride),
                (j * stride, reach - j * stride),
                (0, 0),
                (0, 0),
            ],
        )
        for i in range(side)
        for j in range(side)
    ]
    pixels = (reach + rows) * (reach + columns) * channels
    return jnp.stack(placed, axis=3).reshape(pixels, side * side * outputs)
