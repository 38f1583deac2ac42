"""A convolution of few channels as one matrix product, and its gradients likewise.

    y = L(W(x) M(k))

`W` copies a window of the images into each row of a matrix, `M` places the kernel at
all of its positions in such a window, and `L` lays the product out as images. They only
move numbers, so with their transposes

    dx = W'(L'(dy) M(k)'),    dk = M'(W(x)' L'(dy))

In a step that needs both `y` and `dk`, the compiler makes `W(x)` once.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ecogen_jax.nets.plain_conv import Geometry

Move = Callable[[jax.Array], jax.Array]


class Form(NamedTuple):
    """The three moves of a convolution, and what they take.

    Attributes:
      windows: `W`, images `[batch, height, width, inputs]` to a matrix.
      matrix: `M`, a kernel `[rows, columns, inputs, outputs]` to a matrix.
      laid_out: `L`, the product to images `[batch, height, width, outputs]`.
      images: shape that `windows` takes.
      kernel: shape that `matrix` takes.
      product: shape that `laid_out` takes.
    """

    windows: Move
    matrix: Move
    laid_out: Move
    images: tuple[int, ...]
    kernel: tuple[int, ...]
    product: tuple[int, ...]


def value(form: Form, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution, in float32."""
    return form.laid_out(_product(form.windows(x), form.matrix(kernel)))


def input_gradient(form: Form, cotangent: jax.Array, kernel: jax.Array) -> jax.Array:
    """Its gradient by the images, in float32."""
    rows = _transposed(form.laid_out, form.product, cotangent)
    product = _product(rows, form.matrix(kernel).T)
    return _transposed(form.windows, form.images, product)


def kernel_gradient(form: Form, x: jax.Array, cotangent: jax.Array) -> jax.Array:
    """Its gradient by the kernel, in float32."""
    rows = _transposed(form.laid_out, form.product, cotangent)
    product = _product(form.windows(x).T, rows)
    return _transposed(form.matrix, form.kernel, product)


def _product(first: jax.Array, second: jax.Array) -> jax.Array:
    return jnp.matmul(first, second, preferred_element_type=jnp.float32)


def _transposed(move: Move, shape: tuple[int, ...], result: jax.Array) -> jax.Array:
    """The transpose of a move that takes an array of this shape."""
    # Only its type is used; inside `shard_map`, that has the axes that `result` has.
    taken = lax.broadcast(result[(0,) * result.ndim], shape)
    (back,) = jax.linear_transpose(move, taken)(result)
    return back


def by_tiles(
    geometry: Geometry, batch: int, kernel: tuple[int, ...], side: int
) -> Form:
    """A row for each tile of outputs, whose window is all that they see.

    One row a pixel would be too short to be fast where channels are few. A tile of
    `side` x `side` outputs makes it longer, and copies each input pixel less often.

    Args:
      geometry: of the convolution.
      batch: number of images.
      kernel: shape of the kernel.
      side: outputs of a tile along both axes.
    """
    *window, inputs, outputs = kernel
    step, reach = side * geometry.stride, (side - 1) * geometry.stride
    lengths = _positions(geometry)
    tiles = [-(-length // side) for length in lengths]
    spans = [(count - 1) * step + 1 for count in tiles]
    lows = [low for low, _ in geometry.pads]
    # The last tiles may extend beyond the padded image (the excess is cut off below)
    # or leave pixels uncovered.
    axes = zip(spans, geometry.size, window, lows, strict=True)
    ends = [span - 1 + reach + length - size - low for span, size, length, low in axes]

    def windows(x: jax.Array) -> jax.Array:
        x = padded(x, 1, lows, ends)
        seen = [
            x[:, i : i + spans[0] : step, j : j + spans[1] : step]
            for i in range(reach + window[0])
            for j in range(reach + window[1])
        ]
        return jnp.concatenate(seen, -1).reshape(batch * tiles[0] * tiles[1], -1)

    def matrix(kernel: jax.Array) -> jax.Array:
        starts = range(0, side * geometry.stride, geometry.stride)
        placed = [
            padded(kernel, 0, (i, j), (reach - i, reach - j))
            for i in starts
            for j in starts
        ]
        return jnp.stack(placed, axis=3).reshape(-1, side * side * outputs)

    def laid_out(product: jax.Array) -> jax.Array:
        return beside(product.reshape(batch, *tiles, side, side, outputs), lengths)

    return Form(
        windows,
        matrix,
        laid_out,
        (batch, *geometry.size, inputs),
        kernel,
        (batch * tiles[0] * tiles[1], side * side * outputs),
    )


def by_rows(geometry: Geometry, batch: int, kernel: tuple[int, ...]) -> Form:
    """A row for each row of outputs, whose window is all rows of images that it sees.

    Copies whole rows, and the product is laid out already; but multiplies by a zero
    wherever an output does not see a pixel of its rows.

    Args:
      geometry: of the convolution.
      batch: number of images.
      kernel: shape of the kernel.
    """
    rows, columns, inputs, outputs = kernel
    stride, (size, across) = geometry.stride, geometry.size
    (above, _), (before, _) = geometry.pads
    height, width = _positions(geometry)
    span = (height - 1) * stride + 1
    below = span + rows - 1 - size - above

    def windows(x: jax.Array) -> jax.Array:
        x = padded(x, 1, (above, 0), (below, 0)).reshape(batch, -1, across * inputs)
        seen = [
            lax.slice_in_dim(x, row, row + span, stride, axis=1) for row in range(rows)
        ]
        return jnp.concatenate(seen, -1).reshape(batch * height, -1)

    def matrix(kernel: jax.Array) -> jax.Array:
        starts = [at * stride - before for at in range(width)]
        placed = [
            padded(kernel, 0, (0, start), (0, across - start - columns))
            for start in starts
        ]
        return jnp.stack(placed, axis=3).reshape(-1, width * outputs)

    def laid_out(product: jax.Array) -> jax.Array:
        return product.reshape(batch, height, width, outputs)

    return Form(
        windows,
        matrix,
        laid_out,
        (batch, size, across, inputs),
        kernel,
        (batch * height, width * outputs),
    )


def _positions(geometry: Geometry) -> list[int]:
    """Outputs along both axes."""
    axes = zip(geometry.size, geometry.window, geometry.pads, strict=True)
    return [
        (size + sum(pads) - length) // geometry.stride + 1
        for size, length, pads in axes
    ]


def beside(tiles: jax.Array, lengths: Sequence[int]) -> jax.Array:
    """Puts tiles `[batch, rows, columns, side, side, channels]` beside each other.

    Args:
      tiles: of images.
      lengths: rows and columns of images that are kept.
    """
    batch, rows, columns, side, _, channels = tiles.shape
    y = tiles.transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(batch, rows * side, columns * side, channels)
    return y[:, : lengths[0], : lengths[1]]


def padded(
    array: jax.Array, axis: int, lows: Sequence[int], highs: Sequence[int]
) -> jax.Array:
    """Adds zeros before and after two neighbouring axes; less than none cuts off."""
    borders = [(0, 0, 0)] * array.ndim
    borders[axis], borders[axis + 1] = (
        (low, high, 0) for low, high in zip(lows, highs, strict=True)
    )
    return lax.pad(array, jnp.zeros((), array.dtype), borders)
