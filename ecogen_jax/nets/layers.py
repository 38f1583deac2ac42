"""The layers that classifiers and generators share, at the precision of their net."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike, DTypeLike

from ecogen_jax.nets.conv import conv
from ecogen_jax.nets.precision import matmul
from ecogen_jax.nets.upsample import conv_upsampled
from ecogen_jax.types import Key

HE_NORMAL = nnx.initializers.he_normal()
FAN_IN_UNIFORM = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""`U(-b, b)` with `b = 1 / sqrt(fan in)`: how PyTorch starts a layer by default."""


class Conv(nnx.Module):
    """3x3 convolution without bias (a BatchNorm follows), by default He-normal."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int = 1,
        init: nnx.Initializer = HE_NORMAL,
        rngs: nnx.Rngs,
    ) -> None:
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


def linear_as_torch(inputs: int, outputs: int, *, rngs: nnx.Rngs) -> Linear:
    """A linear layer that starts as PyTorch's: `FAN_IN_UNIFORM`, the bias too."""

    def bias(key: Key, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
        bound = inputs**-0.5
        return jax.random.uniform(key, shape, dtype, minval=-bound, maxval=bound)

    return Linear(
        inputs, outputs, kernel_init=FAN_IN_UNIFORM, bias_init=bias, rngs=rngs
    )
