"""Sizes of the relay distillation hops, for ours and PyTorch. Imports only Python.

A unit is one step: one generator step, then a few student steps on the bank of its
images. The docstring of `ecogen_jax/relay/distillers/relay.py` has the algorithm.
"""

from typing import NamedTuple


class Hop(NamedTuple):
    """One hop.

    Attributes:
        shape: height, width and channels of an image, of ten classes.
        teacher: name of a net, as in `ecogen_jax.nets.classifier`.
        student: likewise.
        generator: `ours`, or `standard`: see `nets.StandardGenerator`.
        width: of the generator; papers call it ngf.
        latent: length of the noise vector.
        batch: images in a step of the generator, and in one of the student.
        bank: images that are kept.
        student_steps: in each step.
        rate: of the student's Adam, which falls to 2 % over `total` student steps.
        generator_rate: of the generator's Adam.
        total: student steps of the whole hop.
        temperature: of the student's loss.
        shift: largest random shift of the student's images, in pixels; if not 0, the
            teacher's logits are recomputed on the shifted images.
        batchnorm: weight of the teacher's statistics.
        adversarial: weight of the disagreement, on images with the same predicted
          class.
        steps: in one call of our program.
    """

    shape: tuple[int, int, int]
    teacher: str
    student: str
    generator: str
    width: int
    latent: int
    batch: int
    bank: int
    student_steps: int
    rate: float
    generator_rate: float
    total: int
    temperature: float
    shift: int
    batchnorm: float
    adversarial: float
    steps: int


CLASSES = 10
HOPS = {
    "small": Hop(  # the hop of configs/hops/a2.py
        shape=(28, 28, 1),
        teacher="lenet5",
        student="lenet5_half",
        generator="ours",
        width=8,
        latent=64,
        batch=128,
        bank=16384,
        student_steps=4,
        rate=4e-3,
        generator_rate=2e-2,
        total=30 * 40 * 4,
        temperature=8.0,
        shift=2,
        batchnorm=0.3,
        adversarial=2.0,
        steps=10,
    ),
    "ngf64": Hop(
        shape=(32, 32, 3),
        teacher="resnet8",
        student="resnet8",
        generator="standard",
        width=64,
        latent=256,
        batch=128,
        bank=4096,
        student_steps=1,
        rate=2e-3,
        generator_rate=1e-3,
        total=4000,
        temperature=4.0,
        shift=0,
        batchnorm=1.0,
        adversarial=1.0,
        steps=2,
    ),
}
