"""Residual nets for small images, which data-free distillation uses on CIFAR-10.

`wrn_<depth>_<width>`: wide residual nets with pre-activation blocks (Zagoruyko and
Komodakis, "Wide residual networks", BMVC 2016). `resnet8`: the form of He et al.,
"Deep residual learning for image recognition" (CVPR 2016, section 4.2) with n = 1 and
projection shortcuts with BatchNorm (their option B).
"""

import itertools
from collections.abc import Sequence

import jax
from flax import nnx

from ecogen_jax.nets.functional import BatchNorm
from ecogen_jax.nets.layers import Conv, Linear
from ecogen_jax.nets.pool import global_average

WIDE: dict[str, tuple[int, int]] = {
    "wrn_16_1": (16, 1),
    "wrn_16_2": (16, 2),
    "wrn_40_2": (40, 2),
}
"""Depth (number of convolutions and dense layers) and width factor by name."""
RESIDUAL_NAMES = ("resnet8", *WIDE)

Shape = tuple[int, int, int]


class Projection(nnx.Module):
    """1x1 convolution without bias: a matrix product over every `stride`-th pixel."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, rngs: nnx.Rngs):
        self.linear = Linear(
            inputs,
            outputs,
            use_bias=False,
            kernel_init=nnx.initializers.he_normal(),
            rngs=rngs,
        )
        self.stride = stride

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[batch, height, width, inputs]` pixel by pixel."""
        return self.linear(x[:, :: self.stride, :: self.stride])


class PlainBlock(nnx.Module):
    """Two 3x3 convolutions, each with BatchNorm; ReLU after the sum (He et al.)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, rngs: nnx.Rngs):
        self.conv1 = Conv(inputs, outputs, stride=stride, rngs=rngs)
        self.norm1 = BatchNorm(outputs)
        self.conv2 = Conv(outputs, outputs, rngs=rngs)
        self.norm2 = BatchNorm(outputs)
        self.projects = inputs != outputs
        if self.projects:
            self.shortcut = Projection(inputs, outputs, stride=stride, rngs=rngs)
            self.norm3 = BatchNorm(outputs)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `[batch, height, width, inputs]`."""
        y = jax.nn.relu(self.norm1(self.conv1(x), train=train))
        y = self.norm2(self.conv2(y), train=train)
        if self.projects:
            x = self.norm3(self.shortcut(x), train=train)
        return jax.nn.relu(x + y)


class WideBlock(nnx.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions, nothing after the sum.

    Where the number of channels changes, the shortcut starts at the first activation.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, rngs: nnx.Rngs):
        self.norm1 = BatchNorm(inputs)
        self.conv1 = Conv(inputs, outputs, stride=stride, rngs=rngs)
        self.norm2 = BatchNorm(outputs)
        self.conv2 = Conv(outputs, outputs, rngs=rngs)
        self.projects = inputs != outputs
        if self.projects:
            self.shortcut = Projection(inputs, outputs, stride=stride, rngs=rngs)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `[batch, height, width, inputs]`."""
        y = jax.nn.relu(self.norm1(x, train=train))
        if self.projects:
            x = self.shortcut(y)
        y = jax.nn.relu(self.norm2(self.conv1(y), train=train))
        return x + self.conv2(y)


class Residual(nnx.Module):
    """A 3x3 convolution, three stages of blocks, a mean over positions, a classifier.

    The second and the third stage halve the sides. With `WideBlock` the BatchNorm and
    ReLU that a block lacks at its end follow the last stage, with `PlainBlock` they
    follow the first convolution.
    """

    def __init__(
        self,
        block: type[PlainBlock] | type[WideBlock],
        channels: Sequence[int],
        num_blocks: int,
        *,
        inputs: int,
        num_classes: int,
        rngs: nnx.Rngs,
    ) -> None:
        stem, *stages = channels
        self.is_wide = block is WideBlock
        self.num_blocks = num_blocks
        self.conv = Conv(inputs, stem, rngs=rngs)
        self.norm = BatchNorm(stages[-1] if self.is_wide else stem)
        blocks = {}
        for stage, number in self._positions():
            stride = 2 if stage > 1 and number == 1 else 1
            outputs = stages[stage - 1]
            blocks[_name(stage, number)] = block(
                stem, outputs, stride=stride, rngs=rngs
            )
            stem = outputs
        self.blocks = nnx.Dict(blocks)
        self.classifier = Linear(stages[-1], num_classes, rngs=rngs)

    def __call__(
        self, images: jax.Array, *, train: bool
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Logits `[batch, num_classes]`, the map of each stage, and the features."""
        x = 2 * images - 1
        x = self.conv(x)
        if not self.is_wide:
            x = jax.nn.relu(self.norm(x, train=train))
        maps = []
        for stage, number in self._positions():
            x = self.blocks[_name(stage, number)](x, train=train)
            if number == self.num_blocks:
                maps.append(x)
        if self.is_wide:
            x = jax.nn.relu(self.norm(x, train=train))
        features = global_average(x)
        return self.classifier(features), (*maps, features)

    def _positions(self) -> list[tuple[int, int]]:
        """Stage and number of every block, from 1, in the order of the images' way."""
        return list(itertools.product((1, 2, 3), range(1, self.num_blocks + 1)))


def _name(stage: int, number: int) -> str:
    return f"stage{stage}_block{number}"


def residual(
    name: str, *, shape: Shape, num_classes: int, rngs: nnx.Rngs
) -> nnx.Module:
    """Builds a residual net.

    Args:
      name: one of `RESIDUAL_NAMES`.
      shape: height, width and channels of one image, in [0, 1].
      num_classes: number of logits.
      rngs: random streams of the first parameters.

    Returns:
      A module from images to logits and activations: the map of each of the three
      stages and the features after the mean over positions.

    Raises:
      ValueError: the name is unknown.
    """
    if name == "resnet8":
        return Residual(
            PlainBlock,
            (16, 16, 32, 64),
            1,
            inputs=shape[2],
            num_classes=num_classes,
            rngs=rngs,
        )
    if name not in WIDE:
        raise ValueError(f"no net {name!r}; allowed: {', '.join(RESIDUAL_NAMES)}")
    return wide_resnet(*WIDE[name], inputs=shape[2], num_classes=num_classes, rngs=rngs)


def wide_resnet(
    depth: int, width: int, *, inputs: int, num_classes: int, rngs: nnx.Rngs
) -> nnx.Module:
    """Builds WRN-`depth`-`width`.

    Args:
      depth: number of layers on the longest path; 6 n + 4 for n blocks a stage.
      width: factor on the 16, 32 and 64 channels of the three stages.
      inputs: channels of an image.
      num_classes: number of logits.
      rngs: random streams of the first parameters.

    Returns:
      The module, see `residual`.

    Raises:
      ValueError: no number of blocks gives that depth.
    """
    num_blocks, rest = divmod(depth - 4, 6)
    if rest or num_blocks < 1:
        raise ValueError(f"depth is {depth}: allowed is 6 n + 4, such as 16, 22 or 40")
    channels = (16, 16 * width, 32 * width, 64 * width)
    return Residual(
        WideBlock,
        channels,
        num_blocks,
        inputs=inputs,
        num_classes=num_classes,
        rngs=rngs,
    )
