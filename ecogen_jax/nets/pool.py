"""Pooling by strided slices: on a CPU ten times faster than a window reduction."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from ecogen_jax.nets.upsample import upsample


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: jax.Array, size: int = 2) -> jax.Array:
    """Largest value of each `size` x `size` block; a remainder at the end is cut off.

    Args:
      x: `[batch, height, width, channels]`.
      size: side of the blocks, which do not overlap.

    Returns:
      `[batch, height // size, width // size, channels]`. Equal largest values share
      the gradient alike.
    """
    return functools.reduce(jnp.maximum, _corners(x, size))


def _largest(x: jax.Array, size: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = max_pool(x, size)
    return y, (x, y)


def _to_largest(
    size: int, saved: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array]:
    """The gradient, written by pixel.

    The gradient of the slices is a sum of arrays with gaps, into which XLA fuses the
    computation of the cotangent, once for each of them: S2.small of the benchmarks
    made 8.4 steps a second with it, and 13.0 with this (the latter in the table of
    commit 5a19b34).
    """
    x, y = saved
    equal = [(corner == y).astype(y.dtype) for corner in _corners(x, size)]
    share = cotangent / functools.reduce(jnp.add, equal)
    ends = [length % size for length in x.shape[1:3]]

    def spread(each: jax.Array) -> jax.Array:
        """Entries over their blocks, and zeros over what was cut off."""
        wide = upsample(each, factor=size)
        return jnp.pad(wide, ((0, 0), (0, ends[0]), (0, ends[1]), (0, 0)))

    return (jnp.where(x == spread(y), spread(share), 0.0),)


max_pool.defvjp(_largest, _to_largest)


def global_average(x: jax.Array) -> jax.Array:
    """Mean over all positions: `[batch, height, width, c]` to `[batch, c]`."""
    return jnp.mean(x, axis=(1, 2))


def _corners(x: jax.Array, size: int) -> list[jax.Array]:
    """Entry `[i, j]` of every block, one array for each `i` and `j`."""
    batch, height, width, channels = x.shape
    if min(height, width) < size:
        raise ValueError(
            f"pooling by {size} needs images of at least {size}x{size}, got "
            f"{height}x{width}: take a smaller size or larger images"
        )
    end_high, end_wide = height // size * size, width // size * size
    return [
        lax.slice(
            x,
            (0, i, j, 0),
            (batch, end_high, end_wide, channels),
            (1, size, size, 1),
        )
        for i in range(size)
        for j in range(size)
    ]
