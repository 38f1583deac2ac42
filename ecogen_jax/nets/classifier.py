"""Image classifiers of three sizes, one for each tier by default.

All are strided 3x3 convolutions with BatchNorm and one hidden dense layer, the
shape of the MNIST net in FedGen (Zhu et al., ICML 2021), at growing widths. They
take images in [0, 1] and any size from 8x8 up.
"""

from typing import TypedDict

import jax
import jax.numpy as jnp
from flax import nnx

from ecogen_jax.nets.conv import conv
from ecogen_jax.nets.functional import BatchNorm, Net, functional


class Conv(nnx.Module):
    """3x3 convolution without bias (a BatchNorm follows), He-normal kernel."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, rngs: nnx.Rngs):
        init = nnx.initializers.he_normal()
        self.kernel = nnx.Param(init(rngs.params(), (3, 3, inputs, outputs)))
        self.stride = stride

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves `[batch, height, width, inputs]`."""
        return conv(x, self.kernel[...], stride=self.stride)


class StridedCNN(nnx.Module):
    """Two strided convolutions, one hidden dense layer, one linear classifier."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        num_classes: int,
        *,
        widths: tuple[int, int],
        hidden: int,
        rngs: nnx.Rngs,
    ) -> None:
        height, width, channels = shape
        first, second = widths
        flat = -(-height // 4) * -(-width // 4) * second
        self.conv1 = Conv(channels, first, stride=2, rngs=rngs)
        self.norm1 = BatchNorm(first)
        self.conv2 = Conv(first, second, stride=2, rngs=rngs)
        self.norm2 = BatchNorm(second)
        self.dense = nnx.Linear(flat, hidden, use_bias=False, rngs=rngs)
        self.norm3 = BatchNorm(hidden)
        self.classifier = nnx.Linear(hidden, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Logits `[batch, num_classes]` of images in [0, 1]."""
        x = 2 * images - 1
        x = jax.nn.relu(self.norm1(self.conv1(x), train=train))
        x = jax.nn.relu(self.norm2(self.conv2(x), train=train))
        x = x.reshape(x.shape[0], -1)
        x = jax.nn.relu(self.norm3(self.dense(x), train=train))
        return self.classifier(x)


class Size(TypedDict):
    """Channels of the two convolutions, and units of the hidden layer."""

    widths: tuple[int, int]
    hidden: int


SIZES: dict[str, Size] = {
    "cnn_small": {"widths": (8, 16), "hidden": 32},
    "cnn_medium": {"widths": (16, 32), "hidden": 64},
    "cnn_large": {"widths": (32, 64), "hidden": 128},
}


def classifier(name: str, *, shape: tuple[int, int, int], num_classes: int) -> Net:
    """Builds a classifier.

    Args:
      name: a key of `SIZES`.
      shape: height, width and channels of one image.
      num_classes: number of logits.

    Returns:
      A net from images `[batch, height, width, channels]` in [0, 1] to logits
      `[batch, num_classes]`.
    """
    size = SIZES[name]
    return functional(lambda rngs: StridedCNN(shape, num_classes, **size, rngs=rngs))


def to_unit(images: jax.Array) -> jax.Array:
    """Turns stored uint8 images into the floats in [0, 1] that every net takes."""
    return images.astype(jnp.float32) / 255.0


def to_bytes(images: jax.Array) -> jax.Array:
    """Turns images in [0, 1] into uint8, as they are stored."""
    return jnp.round(images * 255.0).astype(jnp.uint8)
