"""Relay distillation in PyTorch: the nets and losses of our hop, one thread.

    python -m benchmarks.plain.hop_torch small|ngf64 default|channels_last

A unit is one generator step with its student steps.
"""

import sys

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.hops import CLASSES, HOPS, Hop
from benchmarks.plain.hop_nets import BatchNorm, Generator, Recorder, classifier
from benchmarks.speaker import Speaker


class Distillation:
    """Teacher, student, generator and bank."""

    def __init__(self, hop: Hop, layout: torch.memory_format) -> None:
        self.hop, self.layout, channels = hop, layout, hop.shape[2]
        self.teacher = classifier(hop.teacher, channels).eval().requires_grad_(False)
        self.student, self.generator = classifier(hop.student, channels), Generator(hop)
        for net in (self.teacher, self.student, self.generator):
            net.to(memory_format=layout)
        self.apart: list[Tensor] = []
        for layer in self.teacher.modules():
            if isinstance(layer, BatchNorm | Recorder):
                layer.register_forward_pre_hook(self._record)
        self.generator_tx = torch.optim.Adam(
            self.generator.parameters(),
            hop.generator_rate,
            betas=(0.5, 0.999),
            fused=True,
        )
        self.student_tx = torch.optim.Adam(
            self.student.parameters(), hop.rate, fused=True
        )
        self.decay = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.student_tx, hop.total, eta_min=0.02 * hop.rate
        )
        height, width, _ = hop.shape
        self.images = torch.zeros(hop.bank, channels, height, width, dtype=torch.uint8)
        self.logits = torch.zeros(hop.bank, CLASSES)
        self.written = 0

    def _record(self, layer: nn.Module, inputs: tuple[Tensor]) -> None:
        if torch.is_grad_enabled():
            self.apart.append(layer.apart(*inputs))

    def step(self) -> None:
        """The generator once, then the student."""
        self.improve_generator()
        self.student.train()
        for _ in range(self.hop.student_steps):
            self.teach()

    def improve_generator(self) -> None:
        """One step of the generator, whose images enter the bank."""
        hop = self.hop
        labels = torch.randint(CLASSES, (hop.batch,))
        images = self.generator(torch.randn(hop.batch, hop.latent), labels)
        images = images.contiguous(memory_format=self.layout)
        self.apart.clear()
        logits = self.teacher(images)
        self.student.eval().requires_grad_(False)
        guess = self.student(images)
        self.student.requires_grad_(True)
        same = logits.argmax(dim=1) == guess.argmax(dim=1)
        disagreement = (same * divergence(logits, guess, 1.0)).mean()
        mean = F.softmax(logits, dim=1).mean(dim=0)
        loss = (
            F.cross_entropy(logits, labels)
            + hop.batchnorm * torch.stack(self.apart).sum()
            - hop.adversarial * disagreement
            + (mean * (mean + 1e-12).log()).sum()
        )
        self.generator_tx.zero_grad()
        loss.backward()
        self.generator_tx.step()
        slots = torch.arange(self.written, self.written + hop.batch) % hop.bank
        self.images[slots] = (images.detach() * 255).round().to(torch.uint8)
        self.logits[slots] = logits.detach()
        self.written += hop.batch

    def teach(self) -> None:
        """One step of the student on images of the bank."""
        hop = self.hop
        index = torch.randint(min(self.written, hop.bank), (hop.batch,))
        images, target = self.images[index].float() / 255, self.logits[index]
        if hop.shift:
            images = shifted(images, hop.shift)
        images = images.contiguous(memory_format=self.layout)
        if hop.shift:
            with torch.no_grad():
                target = self.teacher(images)
        loss = divergence(target, self.student(images), hop.temperature).mean()
        self.student_tx.zero_grad()
        loss.backward()
        self.student_tx.step()
        self.decay.step()


def divergence(target: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """`T^2 KL` of softened distributions, `[batch]`."""
    log_p = F.log_softmax(target / temperature, dim=1)
    log_q = F.log_softmax(logits / temperature, dim=1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=1)


def shifted(images: Tensor, most: int) -> Tensor:
    """Moves each image by its own offset; the edge's values come in from outside."""
    batch, _, height, width = images.shape
    padded = F.pad(images, (most,) * 4, mode="replicate")
    down, across = torch.randint(2 * most + 1, (2, batch, 1))
    rows, columns = down + torch.arange(height), across + torch.arange(width)
    number = torch.arange(batch)[:, None, None]
    moved = padded[number, :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def main(name: str, layout: str) -> None:
    """Works for as long as it is asked to."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    formats = {"default": torch.contiguous_format}
    chosen = formats.get(layout, torch.channels_last)
    distillation = Distillation(HOPS[name], chosen)
    speaker = Speaker("torch")
    while True:
        distillation.step()
        speaker.tick()


if __name__ == "__main__":
    main(*sys.argv[1:])
