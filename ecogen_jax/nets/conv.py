"""Convolutions that stay fast on a CPU inside a compiled loop.

XLA's CPU backend leaves its fast path for the two convolution gradients when
they stand inside a loop body (https://github.com/jax-ml/jax/issues/12868): a
training step inside `lax.scan` is then tens of times slower than outside. Here
both gradients are written so that the compiler only ever sees what it is fast
at: a matrix product over patches for strided kernels, and forward convolutions
for unit stride. On GPU and TPU the plain `lax` convolution is used.
"""

import jax
import jax.numpy as jnp
from jax import lax

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv(x: jax.Array, kernel: jax.Array, *, stride: int = 1) -> jax.Array:
    """Two-dimensional convolution with "SAME" padding and exact gradients.

    Args:
      x: images, `[batch, height, width, channels_in]`.
      kernel: `[size, size, channels_in, channels_out]`.
      stride: step of the window along both axes.

    Returns:
      `[batch, ceil(height / stride), ceil(width / stride), channels_out]`.
    """
    if jax.default_backend() != "cpu":
        return _plain(x, kernel, stride, _padding(x, kernel, stride))
    return _unit_stride(x, kernel) if stride == 1 else _patches(x, kernel, stride)


def _padding(x: jax.Array, kernel: jax.Array, stride: int) -> list[tuple[int, int]]:
    pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), "SAME")
    return [(int(low), int(high)) for low, high in pads]


def _plain(
    x: jax.Array, kernel: jax.Array, stride: int, pads: list[tuple[int, int]]
) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=_DIMENSIONS
    )


def _patches(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Strided windows gathered by slices, then one matrix product."""
    size, channels_out = kernel.shape[0], kernel.shape[-1]
    batch, height, width, channels = x.shape
    padded = jnp.pad(x, [(0, 0), *_padding(x, kernel, stride), (0, 0)])
    rows, columns = -(-height // stride), -(-width // stride)
    down, across = (rows - 1) * stride + 1, (columns - 1) * stride + 1
    windows = [
        lax.slice(
            padded,
            (0, i, j, 0),
            (batch, i + down, j + across, channels),
            (1, stride, stride, 1),
        )
        for i in range(size)
        for j in range(size)
    ]
    flat = jnp.concatenate(windows, axis=-1).reshape(batch * rows * columns, -1)
    product = flat @ kernel.reshape(-1, channels_out)
    return product.reshape(batch, rows, columns, channels_out)


@jax.custom_vjp
def _unit_stride(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _plain(x, kernel, 1, _padding(x, kernel, 1))


def _unit_stride_forward(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _unit_stride(x, kernel), (x, kernel)


def _unit_stride_backward(
    residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Both gradients as forward convolutions.

    With `y[p] = sum_q x[p + q - low] k[q]`: the input gradient correlates the
    cotangent with the flipped kernel, and the kernel gradient correlates the
    input with the cotangent, the batch taking the place of the channels.
    """
    x, kernel = residuals
    pads = _padding(x, kernel, 1)
    flipped = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    mirrored = [(high, low) for low, high in pads]
    grad_x = _plain(cotangent, flipped, 1, mirrored)
    grad_kernel = _plain(
        x.transpose(3, 1, 2, 0), cotangent.transpose(1, 2, 0, 3), 1, pads
    )
    return grad_x, grad_kernel.transpose(1, 2, 0, 3)


_unit_stride.defvjp(_unit_stride_forward, _unit_stride_backward)


def upsample(x: jax.Array, *, factor: int = 2) -> jax.Array:
    """Nearest-neighbour upsampling, `[batch, h, w, c]` to `[batch, f h, f w, c]`."""
    return jnp.repeat(jnp.repeat(x, factor, axis=1), factor, axis=2)
