"""A convolution and its gradients as three plain `lax` convolutions.

Each of the three is linear in both arguments, and the other two are its gradients. They
are written explicitly, since JAX's own gradient of a convolution with a result wider
than its operands multiplies in the wider dtype.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
"""Axes of images, of a kernel and of the result."""


class Geometry(NamedTuple):
    """The parameters of a convolution besides its two arrays.

    Attributes:
      stride: step of the window along both axes.
      pads: pixels added before and after, rows then columns.
      size: height and width of the images.
      window: rows and columns of the kernel.
      dtype: of the operands, see `precision`.
    """

    stride: int
    pads: tuple[tuple[int, int], tuple[int, int]]
    size: tuple[int, ...]
    window: tuple[int, ...]
    dtype: Any


Bilinear = Callable[[Geometry, jax.Array, jax.Array], jax.Array]
"""Of a geometry and two arrays: value (images, kernel), gradient of the images
(cotangent, kernel), gradient of the kernel (images, cotangent)."""


def linked(value: Bilinear, of_images: Bilinear, of_kernel: Bilinear) -> Bilinear:
    """Ties three functions together, so that gradients of any order are exact.

    Args:
      value: of a convolution; like the others, it gives float32.
      of_images: its gradient by the images.
      of_kernel: its gradient by the kernel.

    Returns:
      The value with these gradients. All three get arrays of `Geometry.dtype`.
    """

    def rounding(fn: Bilinear) -> Any:
        def call(geometry: Geometry, *arrays: jax.Array) -> jax.Array:
            first, second = (array.astype(geometry.dtype) for array in arrays)
            return fn(geometry, first, second)

        return jax.custom_vjp(call, (0,))

    def saving(fn: Any) -> Callable[..., tuple[jax.Array, tuple[jax.Array, ...]]]:
        return lambda geometry, *arrays: (fn(geometry, *arrays), arrays)

    convolve, backward, correlate = map(rounding, (value, of_images, of_kernel))
    convolve.defvjp(
        saving(convolve),
        lambda geometry, arrays, out: (
            backward(geometry, out, arrays[1]),
            correlate(geometry, arrays[0], out),
        ),
    )
    backward.defvjp(
        saving(backward),
        lambda geometry, arrays, out: (
            convolve(geometry, out, arrays[1]),
            correlate(geometry, out, arrays[0]),
        ),
    )
    correlate.defvjp(
        saving(correlate),
        lambda geometry, arrays, out: (
            backward(geometry, arrays[1], out),
            convolve(geometry, arrays[0], out),
        ),
    )
    return convolve


def plain_value(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution without gradients of its own."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (geometry.stride, geometry.stride),
        geometry.pads,
        dimension_numbers=DIMENSIONS,
        preferred_element_type=jnp.float32,
    )


def _input_gradient(
    geometry: Geometry, cotangent: jax.Array, kernel: jax.Array
) -> jax.Array:
    """The cotangent, its pixels `stride` apart, correlated with the flipped kernel."""
    stride = geometry.stride
    pads = [
        (length - 1 - low, size - 1 + low - (positions - 1) * stride)
        for size, length, positions, low in _axes(geometry, cotangent)
    ]
    return lax.conv_general_dilated(
        cotangent,
        kernel[::-1, ::-1],
        (1, 1),
        pads,
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWOI", "NHWC"),
        preferred_element_type=jnp.float32,
    )


def _kernel_gradient(
    geometry: Geometry, x: jax.Array, cotangent: jax.Array
) -> jax.Array:
    """The images correlated with the cotangent, batch and channels changing places."""
    return lax.conv_general_dilated(
        x,
        cotangent,
        (1, 1),
        kernel_gradient_pads(geometry, cotangent),
        rhs_dilation=(geometry.stride, geometry.stride),
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
        preferred_element_type=jnp.float32,
    )


def kernel_gradient_pads(
    geometry: Geometry, cotangent: jax.Array
) -> list[tuple[int, int]]:
    """Pads of the images for a cotangent whose pixels lie `stride` apart.

    Pixels that no window reached are cut off by the second pad, which is negative then.
    """
    return [
        (low, (positions - 1) * geometry.stride + length - size - low)
        for size, length, positions, low in _axes(geometry, cotangent)
    ]


def _axes(
    geometry: Geometry, cotangent: jax.Array
) -> Iterator[tuple[int, int, int, int]]:
    """Of rows and columns: pixels, window, positions of the window, first pad."""
    first = [low for low, _ in geometry.pads]
    return zip(geometry.size, geometry.window, cotangent.shape[1:3], first, strict=True)


plain = linked(plain_value, _input_gradient, _kernel_gradient)
"""`plain(geometry, images, kernel)`: the convolution on GPU and TPU."""
