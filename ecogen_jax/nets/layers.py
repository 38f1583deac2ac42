"""The 3x3 convolution that classifiers and generators share."""

import jax
from flax import nnx

from ecogen_jax.nets.conv import conv


class Conv(nnx.Module):
    """3x3 convolution without bias (a BatchNorm follows), He-normal kernel."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, rngs: nnx.Rngs):
        init = nnx.initializers.he_normal()
        self.kernel = nnx.Param(init(rngs.params(), (3, 3, inputs, outputs)))
        self.stride = stride

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves `[batch, height, width, inputs]`."""
        return conv(x, self.kernel[...], stride=self.stride)
