"""The nets of the hops in PyTorch, with the same layers as in `ecogen_jax.nets`."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.hops import CLASSES, Hop

LENETS = {"lenet5": (6, 16, 120, 84), "lenet5_half": (3, 8, 60, 42)}


class Recorder(nn.Module):
    """Remembers the moments of what passes, for nets without BatchNorm."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """Returns `x` as it came."""
        if self.training:
            with torch.no_grad():
                mean, var = moments(x)
                self.running_mean.lerp_(mean, 0.01)
                self.running_var.lerp_(var, 0.01)
        return x

    def apart(self, x: Tensor) -> Tensor:
        """How far the moments of a batch are from those remembered, in their units."""
        mean, var = moments(x)
        scale = self.running_var + 1e-3
        return norm((mean - self.running_mean) * scale.rsqrt()) + norm(
            (var - self.running_var) / scale
        )


class BatchNorm(nn.BatchNorm2d):
    """The library's, which says how far a batch is from what it remembers."""

    def apart(self, x: Tensor) -> Tensor:
        """Norms of the differences of mean and variance."""
        mean, var = moments(x)
        return norm(mean - self.running_mean) + norm(var - self.running_var)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance by channel."""
    axes = [axis for axis in range(x.ndim) if axis != 1]
    var, mean = torch.var_mean(x, axes, correction=0)
    return mean, var


def norm(x: Tensor) -> Tensor:
    """Euclidean, with a gradient at 0."""
    return (x.square().sum() + 1e-12).sqrt()


class LeNet(nn.Module):
    """LeNet-5 with ReLU and max pooling, at any width."""

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        first, second, one, two = LENETS[name]
        self.layers = nn.Sequential(
            nn.Conv2d(channels, first, 5, padding=2),
            nn.MaxPool2d(2),
            Recorder(first),
            nn.ReLU(),
            nn.Conv2d(first, second, 5),
            nn.MaxPool2d(2),
            Recorder(second),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(second * 25, one),
            Recorder(one),
            nn.ReLU(),
            nn.Linear(one, two),
            Recorder(two),
            nn.ReLU(),
            nn.Linear(two, CLASSES),
        )
        self.recorder = Recorder(channels)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images in [0, 1]."""
        return self.layers(2 * self.recorder(images) - 1)


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution without bias."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


class Block(nn.Module):
    """Two 3x3 convolutions with BatchNorm; ReLU after the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(inputs, outputs, stride),
            BatchNorm(outputs),
            nn.ReLU(),
            conv(outputs, outputs),
            BatchNorm(outputs),
        )
        self.shortcut = nn.Sequential()
        if inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False),
                BatchNorm(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[batch, inputs, height, width]`."""
        return F.relu(self.body(x) + self.shortcut(x))


class ResNet8(nn.Module):
    """A convolution, three blocks, the mean over positions, a classifier."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(channels, 16),
            BatchNorm(16),
            nn.ReLU(),
            Block(16, 16, 1),
            Block(16, 32, 2),
            Block(32, 64, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, CLASSES),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images in [0, 1]."""
        return self.layers(2 * images - 1)


class Generator(nn.Module):
    """Noise and a label in, an image in [0, 1] out; see `Hop.generator`."""

    def __init__(self, hop: Hop) -> None:
        super().__init__()
        height, columns, channels = hop.shape
        width, self.base = hop.width, (2 * hop.width, height // 4, columns // 4)
        size = self.base[0] * self.base[1] * self.base[2]
        self.project = nn.Linear(hop.latent + CLASSES, size)
        ours = hop.generator == "ours"
        last = width // 4 if ours else width
        widen = [conv(2 * width, width), nn.PixelShuffle(2)]
        if not ours:
            widen = [nn.Upsample(scale_factor=2), conv(2 * width, width)]
        self.layers = nn.Sequential(
            BatchNorm(2 * width),
            nn.Upsample(scale_factor=2),
            conv(2 * width, 2 * width),
            BatchNorm(2 * width),
            nn.LeakyReLU(0.2),
            *widen,
            BatchNorm(last),
            nn.LeakyReLU(0.2),
            conv(last, channels),
            BatchNorm(channels),
            nn.Sigmoid(),
        )

    def forward(self, latent: Tensor, labels: Tensor) -> Tensor:
        """Images `[batch, channels, height, width]`."""
        code = F.one_hot(labels, CLASSES).float()
        x = self.project(torch.cat([latent, code], dim=1))
        return self.layers(x.reshape(-1, *self.base))


def classifier(name: str, channels: int) -> nn.Module:
    """A net by its name."""
    return ResNet8(channels) if name == "resnet8" else LeNet(name, channels)
