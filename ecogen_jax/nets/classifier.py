"""Image classifiers by name, all of which take images in [0, 1].

| name | layers | source |
|---|---|---|
| `cnn_*` | two strided 3x3 convolutions with BatchNorm, one hidden layer | the shape of the MNIST net of FedGen (Zhu et al., ICML 2021), at growing widths |
| `cnn_fedgen` | the same with 6 and 16 channels; the hidden layer is linear, without BatchNorm; starts as in PyTorch | the MNIST net of FedGen |
| `lenet5*` | two 5x5 convolutions, max pooling, two hidden layers, no BatchNorm but running feature statistics | LeNet-5 (LeCun et al., 1998) with ReLU, as data-free distillation uses it (Chen et al., ICCV 2019); `_half` and `_quarter` have a half and a quarter of its units |
| `mlp` | two hidden layers, no convolution, no BatchNorm | McMahan et al., AISTATS 2017 ("2NN", 200 units) |
| `resnet8`, `wrn_*` | see `ecogen_jax.nets.residual` | |
"""  # noqa: E501

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ecogen_jax.nets.conv import conv
from ecogen_jax.nets.functional import BatchNorm, Net, Recorder, functional
from ecogen_jax.nets.layers import (
    FAN_IN_UNIFORM,
    HE_NORMAL,
    Conv,
    Linear,
    linear_as_torch,
)
from ecogen_jax.nets.pool import max_pool
from ecogen_jax.nets.residual import RESIDUAL_NAMES, residual

Activations = tuple[jax.Array, ...]
Shape = tuple[int, int, int]


class Size(NamedTuple):
    """Channels of the two convolutions, and units of the hidden layers."""

    channels: tuple[int, int]
    hidden: tuple[int, ...]


STRIDED = {
    "cnn_small": Size((8, 16), (32,)),
    "cnn_medium": Size((16, 32), (64,)),
    "cnn_large": Size((32, 64), (128,)),
    "cnn_fedgen": Size((6, 16), (32,)),
}
LENETS = {
    "lenet5": Size((6, 16), (120, 84)),
    "lenet5_half": Size((3, 8), (60, 42)),
    "lenet5_quarter": Size((2, 4), (30, 21)),
}
CLASSIFIERS = (*STRIDED, *LENETS, "mlp", *RESIDUAL_NAMES)
"""Every name that `classifier` knows."""


class StridedCNN(nnx.Module):
    """Two strided convolutions, one hidden dense layer, one linear classifier.

    The hidden layer has BatchNorm and ReLU, unless it is a linear bottleneck: then the
    net starts as PyTorch does by default, as FedGen's does, where a kernel before a
    BatchNorm is smaller, so that SGD changes it faster.
    """

    def __init__(
        self,
        size: Size,
        shape: Shape,
        num_classes: int,
        *,
        bottleneck: bool,
        rngs: nnx.Rngs,
    ) -> None:
        height, width, channels = shape
        (first, second), (hidden,) = size
        flat = -(-height // 4) * -(-width // 4) * second
        init = FAN_IN_UNIFORM if bottleneck else HE_NORMAL
        self.conv1 = Conv(channels, first, stride=2, init=init, rngs=rngs)
        self.norm1 = BatchNorm(first)
        self.conv2 = Conv(first, second, stride=2, init=init, rngs=rngs)
        self.norm2 = BatchNorm(second)
        if bottleneck:
            self.dense = linear_as_torch(flat, hidden, rngs=rngs)
            self.norm3 = None
            self.classifier = linear_as_torch(hidden, num_classes, rngs=rngs)
        else:
            self.dense = Linear(flat, hidden, use_bias=False, rngs=rngs)
            self.norm3 = BatchNorm(hidden)
            self.classifier = Linear(hidden, num_classes, rngs=rngs)

    def __call__(
        self, images: jax.Array, *, train: bool
    ) -> tuple[jax.Array, Activations]:
        """Logits `[batch, num_classes]`, and the activations of the three layers."""
        x = 2 * images - 1
        first = jax.nn.relu(self.norm1(self.conv1(x), train=train))
        second = jax.nn.relu(self.norm2(self.conv2(first), train=train))
        flat = second.reshape(second.shape[0], -1)
        features = self.dense(flat)
        if self.norm3 is not None:
            features = jax.nn.relu(self.norm3(features, train=train))
        return self.classifier(features), (first, second, features)


class LeNet(nnx.Module):
    """LeNet-5 with ReLU and max pooling, at any width.

    It has no BatchNorm, but keeps the running feature statistics of one.
    """

    def __init__(
        self, size: Size, shape: Shape, num_classes: int, *, rngs: nnx.Rngs
    ) -> None:
        height, width, channels = shape
        if min(height, width) < 12:
            raise ValueError(
                f"a LeNet needs images of at least 12x12, not {height}x{width}: "
                "choose one of the cnn_* nets, or mlp"
            )
        (first, second), hidden = size
        flat = ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2) * second
        self.recorder0 = Recorder(channels)
        self.conv1 = ConvPool(channels, first, padding="SAME", rngs=rngs)
        self.recorder1 = Recorder(first)
        self.conv2 = ConvPool(first, second, padding="VALID", rngs=rngs)
        self.recorder2 = Recorder(second)
        self.dense1 = Linear(flat, hidden[0], rngs=rngs)
        self.recorder3 = Recorder(hidden[0])
        self.dense2 = Linear(hidden[0], hidden[1], rngs=rngs)
        self.recorder4 = Recorder(hidden[1])
        self.classifier = Linear(hidden[1], num_classes, rngs=rngs)

    def __call__(
        self, images: jax.Array, *, train: bool
    ) -> tuple[jax.Array, Activations]:
        """Logits `[batch, num_classes]`, both pooled maps, and the features."""
        x = 2 * self.recorder0(images, train=train) - 1
        first = jax.nn.relu(self.recorder1(self.conv1(x), train=train))
        second = jax.nn.relu(self.recorder2(self.conv2(first), train=train))
        flat = second.reshape(second.shape[0], -1)
        hidden = jax.nn.relu(self.recorder3(self.dense1(flat), train=train))
        features = jax.nn.relu(self.recorder4(self.dense2(hidden), train=train))
        return self.classifier(features), (first, second, features)


class ConvPool(nnx.Module):
    """5x5 convolution, 2x2 max pooling, and the convolution's bias; He-normal kernel.

    Bias and ReLU keep the order of values, so after the pooling they cost a quarter.
    """

    def __init__(self, inputs: int, outputs: int, *, padding: str, rngs: nnx.Rngs):
        init = nnx.initializers.he_normal()
        self.kernel = nnx.Param(init(rngs.params(), (5, 5, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.padding = padding

    def __call__(self, x: jax.Array) -> jax.Array:
        """Takes `[batch, height, width, inputs]`; the ReLU is the caller's."""
        pooled = max_pool(conv(x, self.kernel[...], padding=self.padding))
        return pooled + self.bias[...].reshape(1, 1, 1, -1)


class MLP(nnx.Module):
    """Two hidden layers of 200 units."""

    def __init__(self, shape: Shape, num_classes: int, *, rngs: nnx.Rngs) -> None:
        height, width, channels = shape
        self.dense1 = Linear(height * width * channels, 200, rngs=rngs)
        self.dense2 = Linear(200, 200, rngs=rngs)
        self.classifier = Linear(200, num_classes, rngs=rngs)

    def __call__(
        self, images: jax.Array, *, train: bool
    ) -> tuple[jax.Array, Activations]:
        """Logits `[batch, num_classes]`, and the features: it has no maps."""
        del train
        x = (2 * images - 1).reshape(images.shape[0], -1)
        features = jax.nn.relu(self.dense2(jax.nn.relu(self.dense1(x))))
        return self.classifier(features), (features,)


def classifier(name: str, *, shape: Shape, num_classes: int) -> Net:
    """Builds a classifier.

    Args:
      name: one of `CLASSIFIERS`.
      shape: height, width and channels of one image.
      num_classes: number of logits.

    Returns:
      A net from images `[batch, height, width, channels]` in [0, 1] to logits
      `[batch, num_classes]`.

    Raises:
      ValueError: the images are too small for the net.
    """

    def build(rngs: nnx.Rngs) -> nnx.Module:
        if name in STRIDED:
            bottleneck = name == "cnn_fedgen"
            return StridedCNN(
                STRIDED[name], shape, num_classes, bottleneck=bottleneck, rngs=rngs
            )
        if name in LENETS:
            return LeNet(LENETS[name], shape, num_classes, rngs=rngs)
        if name == "mlp":
            return MLP(shape, num_classes, rngs=rngs)
        return residual(name, shape=shape, num_classes=num_classes, rngs=rngs)

    return functional(build)


def to_unit(images: jax.Array) -> jax.Array:
    """Turns stored uint8 images into the floats in [0, 1] that every net takes."""
    return images.astype(jnp.float32) / 255.0


def to_bytes(images: jax.Array) -> jax.Array:
    """Turns images in [0, 1] into uint8, as they are stored."""
    return jnp.round(images * 255.0).astype(jnp.uint8)
