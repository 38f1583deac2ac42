"""The layers that classifiers and generators share, at the precision of their net."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from ecogen_jax.nets.conv import conv
from ecogen_jax.nets.precision import matmul
from ecogen_jax.nets.upsample import conv_upsampled


class Conv(nnx.Module):
    """3x3 convolution without bias (a BatchNorm follows), He-normal kernel."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, rngs: nnx.Rngs):
        init = nnx.initializers.he_normal()
        self.kernel = nnx.Param(init(rngs.params(), (3, 3, inputs, outputs)))
        self.stride = stride

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves `[batch, height, width, inputs]`."""
        return conv(x, self.kernel[...], stride=self.stride)


class UpsampledConv(Conv):
    """The same, of images that are made twice as high and as wide before."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        super().__init__(inputs, outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[batch, h, w, inputs]` to `[batch, 2 h, 2 w, outputs]`."""
        return conv_upsampled(x, self.kernel[...])


class Linear(nnx.Linear):
    """Matrix product, and a bias unless there is none; flax's parameters."""

    # Flax's own can also be told how its result is laid out over devices.
    def __call__(self, x: ArrayLike) -> jax.Array:  # type: ignore[override]
        """Maps `[..., in_features]`."""
        y = matmul(jnp.asarray(x), jnp.asarray(self.kernel[...]))
        if self.bias is None:
            return y
        return y + self.bias[...].reshape((1,) * (y.ndim - 1) + (-1,))
