"""Nearest-neighbour upsampling, and the convolution of upsampled images.

Upsampling doubles each row, so two of the three rows in a window are always equal.
Along rows, and likewise along columns, with kernel `k` and input `x` before upsampling:

    y[2 i]     = k[0] x[i - 1] + (k[1] + k[2]) x[i]
    y[2 i + 1] = (k[0] + k[1]) x[i] + k[2] x[i + 1]

So four 2x2 convolutions at the smaller size, one for each parity of row and column,
give the same result as one 3x3 convolution at the larger size, with 4/9 of the work and
without writing the upsampled images. On GPU and TPU the one convolution is used, see
`conv`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from ecogen_jax.nets.conv import conv
from ecogen_jax.nets.textbook import is_plain


def upsample(x: jax.Array, *, factor: int = 2) -> jax.Array:
    """Nearest-neighbour upsampling, `[batch, h, w, c]` to `[batch, f h, f w, c]`."""
    return jnp.repeat(jnp.repeat(x, factor, axis=1), factor, axis=2)


def conv_upsampled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`conv(upsample(x), kernel)`, up to rounding.

    Args:
      x: images, `[batch, height, width, channels_in]`.
      kernel: `[3, 3, channels_in, channels_out]`.

    Returns:
      `[batch, 2 height, 2 width, channels_out]`.

    Raises:
      ValueError: the kernel's window is another.
    """
    if kernel.shape[:2] != (3, 3):
        raise ValueError(
            f"the window of the kernel is {kernel.shape[:2]}; only (3, 3) is known "
            "here: use conv(upsample(x), kernel)"
        )
    if is_plain():
        return conv(upsample(x), kernel)
    batch, height, width, _ = x.shape
    parities = [
        conv(x, part, padding=((1 - row, row), (1 - column, column)))
        for row, rows in enumerate(_halves(kernel, 0))
        for column, part in enumerate(_halves(rows, 1))
    ]
    return interleave(jnp.stack(parities, axis=3).reshape(batch, height, width, -1))


def interleave(x: jax.Array) -> jax.Array:
    """Moves four channels into each 2x2 block: `[b, h, w, 4c]` to `[b, 2h, 2w, c]`.

    Channel `(2 i + j) c + k` becomes `k` in row `i` and column `j` of its block.
    """
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height, width, 2, 2, channels // 4)
    blocks = blocks.transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(batch, 2 * height, 2 * width, channels // 4)


def _halves(kernel: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """The two taps along an axis that make the even and the odd rows or columns."""
    first, middle, last = (
        lax.slice_in_dim(kernel, start, start + 1, axis=axis) for start in range(3)
    )
    even = jnp.concatenate([first, middle + last], axis)
    return even, jnp.concatenate([first + middle, last], axis)
