"""Nets that only the benchmark needs, with the architecture of a peer's."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks import tasks
from ecogen_jax.nets.conv import conv
from ecogen_jax.nets.functional import BatchNorm, Net, functional
from ecogen_jax.nets.layers import Conv, Linear, UpsampledConv
from ecogen_jax.nets.pool import max_pool

Shape = tuple[int, int, int]


class Dense(nnx.Module):
    """Logistic regression, or one hidden layer before it."""

    def __init__(
        self, inputs: int, hidden: int | None, classes: int, *, rngs: nnx.Rngs
    ) -> None:
        self.hidden = None if hidden is None else Linear(inputs, hidden, rngs=rngs)
        self.classifier = Linear(hidden or inputs, classes, rngs=rngs)

    def __call__(
        self, images: jax.Array, *, train: bool
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Logits `[batch, classes]`, and the features."""
        del train
        x = images.reshape(images.shape[0], -1)
        if self.hidden is not None:
            x = jax.nn.relu(self.hidden(x))
        return self.classifier(x), (x,)


class Valid(nnx.Module):
    """3x3 convolution without padding, with bias and ReLU."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        init = nnx.initializers.he_normal()
        self.kernel = nnx.Param(init(rngs.params(), (3, 3, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Takes two pixels off each side."""
        y = conv(x, self.kernel[...], padding="VALID")
        return jax.nn.relu(y + self.bias[...].reshape(1, 1, 1, -1))


class PflCNN(nnx.Module):
    """The CIFAR-10 net of pfl's benchmarks, without dropout."""

    def __init__(self, shape: Shape, classes: int, *, rngs: nnx.Rngs) -> None:
        side = (shape[0] - 4) // 2
        self.conv1 = Valid(shape[2], 32, rngs=rngs)
        self.conv2 = Valid(32, 64, rngs=rngs)
        self.hidden = Linear(side * side * 64, 128, rngs=rngs)
        self.classifier = Linear(128, classes, rngs=rngs)

    def __call__(
        self, images: jax.Array, *, train: bool
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Logits `[batch, classes]`, the pooled map, and the features."""
        del train
        x = max_pool(self.conv2(self.conv1(images)))
        features = jax.nn.relu(self.hidden(x.reshape(x.shape[0], -1)))
        return self.classifier(features), (x, features)


class StandardGenerator(nnx.Module):
    """The usual generator of data-free distillation, as published.

    Two upsamplings, each followed by a convolution, with `2 width` and `width`
    channels; the second is at full resolution (Fang et al., IJCAI 2021), where ours has
    a depth-to-space rearrangement. The label is appended to the noise.
    """

    def __init__(
        self, shape: Shape, classes: int, *, latent: int, width: int, rngs: nnx.Rngs
    ) -> None:
        self.base = (shape[0] // 4, shape[1] // 4, 2 * width)
        self.classes = classes
        size = self.base[0] * self.base[1] * self.base[2]
        self.project = Linear(latent + classes, size, rngs=rngs)
        self.norm0 = BatchNorm(2 * width)
        self.conv1 = UpsampledConv(2 * width, 2 * width, rngs=rngs)
        self.norm1 = BatchNorm(2 * width)
        self.conv2 = UpsampledConv(2 * width, width, rngs=rngs)
        self.norm2 = BatchNorm(width)
        self.conv3 = Conv(width, shape[2], rngs=rngs)
        self.norm3 = BatchNorm(shape[2])

    def __call__(
        self, latent: jax.Array, labels: jax.Array, *, train: bool
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Images `[batch, height, width, channels]` in [0, 1], and no activations."""
        code = jax.nn.one_hot(labels, self.classes, dtype=latent.dtype)
        x = self.project(jnp.concatenate([latent, code], axis=-1))
        x = self.norm0(x.reshape(x.shape[0], *self.base), train=train)
        x = self.conv1(x)
        x = jax.nn.leaky_relu(self.norm1(x, train=train), 0.2)
        x = self.conv2(x)
        x = jax.nn.leaky_relu(self.norm2(x, train=train), 0.2)
        return jax.nn.sigmoid(self.norm3(self.conv3(x), train=train)), ()


def of_task(task: tasks.Task) -> Net:
    """The classifier of a task."""
    builders: dict[str, Callable[[nnx.Rngs], nnx.Module]] = {
        "logistic": lambda rngs: Dense(_size(task), None, task.classes, rngs=rngs),
        "mlp": lambda rngs: Dense(_size(task), tasks.HIDDEN, task.classes, rngs=rngs),
        "cnn": lambda rngs: PflCNN(task.shape, task.classes, rngs=rngs),
    }
    return functional(builders[task.net])


def standard_generator(shape: Shape, classes: int, *, latent: int, width: int) -> Net:
    """The published generator; `width` is what papers call ngf."""
    return functional(
        lambda rngs: StandardGenerator(
            shape, classes, latent=latent, width=width, rngs=rngs
        )
    )


def _size(task: tasks.Task) -> int:
    height, width, channels = task.shape
    return height * width * channels
