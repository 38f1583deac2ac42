"""A conditional image generator: noise and a label in, an image in [0, 1] out.

The trunk is the usual one of data-free distillation (a linear layer
to a quarter-size map, then upsampling, 3x3 convolutions, BatchNorm and leaky
ReLU: Fang et al., "Contrastive model inversion", IJCAI 2021), with the label
appended to the noise as a one-hot code, or with the shares of several. The last
upsampling is a depth-to-space rearrangement, which saves most of the work at full
resolution. A BatchNorm follows the last convolution, which has no bias (published code:
a bias and no BatchNorm there).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from ecogen_jax.nets.functional import BatchNorm, Net, functional
from ecogen_jax.nets.layers import Conv, Linear, UpsampledConv
from ecogen_jax.nets.upsample import interleave


class ConditionalGenerator(nnx.Module):
    """Maps noise `[batch, latent]` and labels, or their shares, to images."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        num_classes: int,
        *,
        latent_size: int,
        width: int,
        rngs: nnx.Rngs,
    ) -> None:
        height, columns, channels = shape
        self.shape = shape
        self.num_classes = num_classes
        self.base = (-(-height // 4), -(-columns // 4), 2 * width)
        size = self.base[0] * self.base[1] * self.base[2]
        self.project = Linear(latent_size + num_classes, size, rngs=rngs)
        self.norm0 = BatchNorm(2 * width)
        self.conv1 = UpsampledConv(2 * width, 2 * width, rngs=rngs)
        self.norm1 = BatchNorm(2 * width)
        self.conv2 = Conv(2 * width, width, rngs=rngs)
        self.norm2 = BatchNorm(width // 4)
        self.conv3 = Conv(width // 4, channels, rngs=rngs)
        self.norm3 = BatchNorm(channels)

    def __call__(
        self, latent: jax.Array, labels: jax.Array, *, train: bool
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Images `[batch, height, width, channels]` in [0, 1], and no activations.

        Labels are class indices `[batch]` or shares of classes `[batch, classes]`.
        """
        code = labels
        if labels.ndim == 1:
            code = jax.nn.one_hot(labels, self.num_classes, dtype=latent.dtype)
        x = self.project(jnp.concatenate([latent, code], axis=-1))
        x = self.norm0(x.reshape(x.shape[0], *self.base), train=train)
        x = self.conv1(x)
        x = jax.nn.leaky_relu(self.norm1(x, train=train), 0.2)
        x = interleave(self.conv2(x))
        x = jax.nn.leaky_relu(self.norm2(x, train=train), 0.2)
        x = self.norm3(self.conv3(x), train=train)
        return jax.nn.sigmoid(x[:, : self.shape[0], : self.shape[1]]), ()


def generator(
    *, shape: tuple[int, int, int], num_classes: int, latent_size: int, width: int
) -> Net:
    """Builds the generator.

    Args:
      shape: height, width and channels of one image.
      num_classes: number of labels that condition it.
      latent_size: length of the noise vector, drawn from N(0, 1).
      width: channels before the last upsampling; a multiple of 4.

    Returns:
      A net whose `apply` takes latent `[batch, latent_size]` and labels `[batch]`, or
      shares of the classes `[batch, num_classes]`.
    """
    return functional(
        lambda rngs: ConditionalGenerator(
            shape, num_classes, latent_size=latent_size, width=width, rngs=rngs
        )
    )
