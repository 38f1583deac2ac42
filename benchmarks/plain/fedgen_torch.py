"""FedGen in plain PyTorch: devices one after another, one thread.

The algorithm is that of `ecogen_jax/relay/federated/fedgen.py`, whose docstring has the
equations (Zhu et al., ICML 2021). A unit is one round.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.plain import fedgen_sizes as sizes
from benchmarks.speaker import Speaker


class Classifier(nn.Module):
    """Two strided convolutions with BatchNorm, a linear bottleneck, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        one, two = sizes.CHANNELS
        self.body = nn.Sequential(
            nn.Conv2d(1, one, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(one),
            nn.ReLU(),
            nn.Conv2d(one, two, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(two),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(7 * 7 * two, sizes.FEATURES),
        )
        self.classifier = nn.Linear(sizes.FEATURES, sizes.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images in [0, 1]."""
        return self.classifier(self.body(2 * x - 1))


class Generator(nn.Module):
    """Noise and a label in, features out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(sizes.NOISE + sizes.CLASSES, sizes.HIDDEN),
            nn.BatchNorm1d(sizes.HIDDEN),
            nn.ReLU(),
            nn.Linear(sizes.HIDDEN, sizes.FEATURES),
        )

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Features `[batch, features]`."""
        code = F.one_hot(labels, sizes.CLASSES).float()
        return self.layers(torch.cat([noise, code], dim=1))


class Federation:
    """Server and devices."""

    def __init__(self) -> None:
        images, labels, counts = sizes.data()
        x = torch.from_numpy(images.transpose(0, 1, 4, 2, 3).astype(np.float32) / 255)
        self.images, self.labels = x, torch.from_numpy(labels.astype(np.int64))
        self.counts = torch.from_numpy(counts)
        self.net, self.generator = Classifier(), Generator()
        self.workers = [Classifier() for _ in range(sizes.DEVICES)]
        self.optimizer = torch.optim.Adam(
            self.generator.parameters(),
            sizes.GENERATOR_RATE,
            weight_decay=sizes.WEIGHT_DECAY,
            fused=True,
        )
        self.decay = torch.optim.lr_scheduler.ExponentialLR(
            self.optimizer, sizes.GENERATOR_DECAY
        )

    def round(self, number: int) -> None:
        """Samples devices, trains them, trains the generator, averages."""
        active = torch.randperm(sizes.DEVICES)[: sizes.ACTIVE].tolist()
        trained = [self.train_device(device, number) for device in active]
        self.train_generator(trained, self.counts[active])
        means = [
            torch.stack([p.detach() for p in each]).mean(dim=0)
            for each in zip(*(net.parameters() for net in trained), strict=True)
        ]
        with torch.no_grad():
            for param, mean in zip(self.net.parameters(), means, strict=True):
                param.copy_(mean)

    def train_device(self, device: int, number: int) -> Classifier:
        """The local steps of one device, whose BatchNorm statistics stay its own."""
        net = self.workers[device]
        with torch.no_grad():
            pairs = zip(net.parameters(), self.net.parameters(), strict=True)
            for param, received in pairs:
                param.copy_(received)
        net.train()
        self.generator.eval()
        rate = sizes.LEARNING_RATE * sizes.LEARNING_DECAY**number
        weight = sizes.GUIDANCE * sizes.GENERATOR_DECAY**number if number else 0.0
        optimizer = torch.optim.SGD(net.parameters(), rate, fused=True)
        for _ in range(sizes.STEPS):
            index = torch.randint(sizes.IMAGES, (sizes.BATCH,))
            x, y = self.images[device, index], self.labels[device, index]
            optimizer.zero_grad()
            self.device_loss(net, x, y, weight).backward()
            optimizer.step()
        return net

    def device_loss(
        self, net: Classifier, x: Tensor, y: Tensor, weight: float
    ) -> Tensor:
        """Cross-entropy, and what the generator has to say."""
        logits = net(x)
        drawn = torch.randint(sizes.CLASSES, (sizes.GENERATOR_BATCH,))
        with torch.no_grad():
            made = self.generator(torch.rand(len(drawn), sizes.NOISE), drawn)
            like = self.generator(torch.rand(len(y), sizes.NOISE), y)
            target = F.log_softmax(net.classifier(like), dim=1)
        divergence = F.kl_div(
            F.log_softmax(logits, dim=1), target, reduction="batchmean", log_target=True
        )
        guided = F.cross_entropy(net.classifier(made), drawn)
        return F.cross_entropy(logits, y) + weight * (guided + divergence)

    def train_generator(self, trained: list[Classifier], counts: Tensor) -> None:
        """The server's steps on the generator."""
        share = counts / counts.sum(dim=0).clamp(min=1)
        heads = [copy.deepcopy(net.classifier).requires_grad_(False) for net in trained]
        self.generator.train()
        for _ in range(sizes.GENERATOR_STEPS):
            y = torch.randint(sizes.CLASSES, (sizes.GENERATOR_BATCH,))
            noise = torch.rand(len(y), sizes.NOISE)
            made = self.generator(noise, y)
            loss = sum(
                (part[y] * F.cross_entropy(head(made), y, reduction="none")).mean()
                for head, part in zip(heads, share, strict=True)
            )
            apart = (noise[:, None] - noise).square().mean(dim=2)
            unlike = (made[:, None] - made).abs().mean(dim=2)
            loss = loss + torch.exp(-(apart * unlike).mean())
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        self.decay.step()


def main() -> None:
    """Works for as long as it is asked to."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    federation, number = Federation(), 0
    speaker = Speaker("torch")
    while True:
        federation.round(number)
        number = (number + 1) % 200
        speaker.tick()


if __name__ == "__main__":
    main()
