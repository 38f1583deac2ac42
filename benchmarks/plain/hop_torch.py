"""Relay distillation in PyTorch: the nets and losses of our hop, one thread.

    python -m benchmarks.plain.hop_torch small|ngf64 default|channels_last [DEVICE MODE]

A unit is one generator step with its student steps. With DEVICE (`cuda`; `cpu` to try
it), losses are compiled by `torch.compile` in MODE: `default`, or `reduce-overhead`,
which records CUDA graphs.
"""

import sys

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.hops import CLASSES, HOPS, Hop
from benchmarks.plain.hop_nets import BatchNorm, Generator, Recorder, classifier
from benchmarks.speaker import Speaker


class Distillation:
    """Teacher, student, generator and bank; compiled if there is a mode."""

    def __init__(
        self, hop: Hop, layout: torch.memory_format, device: str, mode: str
    ) -> None:
        self.hop, self.layout, channels = hop, layout, hop.shape[2]
        self.device = device
        self.teacher = classifier(hop.teacher, channels).eval().requires_grad_(False)
        self.student, self.generator = classifier(hop.student, channels), Generator(hop)
        for net in (self.teacher, self.student, self.generator):
            net.to(device, memory_format=layout)
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
        shape = (hop.bank, channels, height, width)
        self.images = torch.zeros(shape, dtype=torch.uint8, device=device)
        self.logits = torch.zeros(hop.bank, CLASSES, device=device)
        self.written = 0
        self.losses = [self.generator_loss, self.student_loss]
        if mode:
            self.losses = [torch.compile(loss, mode=mode) for loss in self.losses]

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
        hop, device = self.hop, self.device
        labels = torch.randint(CLASSES, (hop.batch,), device=device)
        noise = torch.randn(hop.batch, hop.latent, device=device)
        self.student.eval().requires_grad_(False)
        loss, images, logits = self.losses[0](noise, labels)
        self.student.requires_grad_(True)
        self.generator_tx.zero_grad()
        loss.backward()
        self.generator_tx.step()
        slots = torch.arange(self.written, self.written + hop.batch, device=device)
        slots = slots % hop.bank
        self.images[slots] = (images.detach() * 255).round().to(torch.uint8)
        self.logits[slots] = logits.detach()
        self.written += hop.batch

    def generator_loss(
        self, noise: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of the generator, its images, and the teacher's logits."""
        hop = self.hop
        images = self.generator(noise, labels)
        images = images.contiguous(memory_format=self.layout)
        logits = self.teacher(images)
        guess = self.student(images)
        same = logits.argmax(dim=1) == guess.argmax(dim=1)
        disagreement = (same * divergence(logits, guess, 1.0)).mean()
        mean = F.softmax(logits, dim=1).mean(dim=0)
        loss = (
            F.cross_entropy(logits, labels)
            + hop.batchnorm * torch.stack(self.apart).sum()
            - hop.adversarial * disagreement
            + (mean * (mean + 1e-12).log()).sum()
        )
        self.apart.clear()
        return loss, images, logits

    def teach(self) -> None:
        """One step of the student on images of the bank."""
        hop = self.hop
        most = min(self.written, hop.bank)
        index = torch.randint(most, (hop.batch,), device=self.device)
        loss = self.losses[1](self.images[index], self.logits[index])
        self.student_tx.zero_grad()
        loss.backward()
        self.student_tx.step()
        self.decay.step()

    def student_loss(self, images: Tensor, target: Tensor) -> Tensor:
        """The loss of the student on images of the bank with the teacher's logits."""
        hop, images = self.hop, images.float() / 255
        if hop.shift:
            images = shifted(images, hop.shift)
        images = images.contiguous(memory_format=self.layout)
        if hop.shift:
            with torch.no_grad():
                target = self.teacher(images)
        return divergence(target, self.student(images), hop.temperature).mean()


def divergence(target: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """`T^2 KL` of softened distributions, `[batch]`."""
    log_p = F.log_softmax(target / temperature, dim=1)
    log_q = F.log_softmax(logits / temperature, dim=1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=1)


def shifted(images: Tensor, most: int) -> Tensor:
    """Moves each image by its own offset; the edge's values come in from outside."""
    batch, _, height, width = images.shape
    padded = F.pad(images, (most,) * 4, mode="replicate")
    device = images.device
    down, across = torch.randint(2 * most + 1, (2, batch, 1), device=device)
    rows = down + torch.arange(height, device=device)
    columns = across + torch.arange(width, device=device)
    number = torch.arange(batch, device=device)[:, None, None]
    moved = padded[number, :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def main(name: str, layout: str, device: str = "cpu", mode: str = "") -> None:
    """Works for as long as it is asked to."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    formats = {"default": torch.contiguous_format}
    chosen = formats.get(layout, torch.channels_last)
    distillation = Distillation(HOPS[name], chosen, device, mode)
    steps = 1
    if device == "cuda":  # as in ours: the precision, and steps between two waits
        torch.set_float32_matmul_precision("high")
        steps = HOPS[name].steps
    speaker = Speaker("torch", work=steps)
    while True:
        for _ in range(steps):
            distillation.step()
        if device == "cuda":
            torch.cuda.synchronize()
        speaker.tick()


if __name__ == "__main__":
    main(*sys.argv[1:])
