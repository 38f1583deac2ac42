"""The interface of distillers: two pure functions over one state, and their sizes."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from flax import struct

from ecogen_jax.nets.functional import Net, Variables
from ecogen_jax.relay.augmentation import Augmentation
from ecogen_jax.relay.bank import Bank
from ecogen_jax.relay.ensemble import Teachers
from ecogen_jax.types import Key, Leaf, PyTree

Metrics = dict[str, jax.Array]

COLLAPSE = "one_class_steps"
"""The only metric of a step that is not a loss: see `HopState`."""


class Weights(NamedTuple):
    """Weights of the loss terms; the equations are in `ecogen_jax.losses`.

    Attributes:
      cross_entropy: the teacher predicts the target label, or the shares of two.
      one_hot: the teacher is certain, of any class.
      batchnorm: the batch matches the teacher's running feature statistics.
      activation: the teacher's features are large.
      adversarial: teacher and student disagree.
      balance: the teacher predicts all classes equally often.
      total_variation: neighbouring pixels are alike.
      contrastive: images differ from each other and from earlier ones.
      attention: of the student: its attention maps match the teacher's.
    """

    cross_entropy: float = 0.0
    one_hot: float = 0.0
    batchnorm: float = 0.0
    activation: float = 0.0
    adversarial: float = 0.0
    balance: float = 0.0
    total_variation: float = 0.0
    contrastive: float = 0.0
    attention: float = 0.0


class Generation(NamedTuple):
    """How the images of a hop are made.

    Attributes:
      shape: height, width and channels of one image.
      num_classes: number of labels.
      latent_size: length of the noise vector.
      batch_size: images in a generator step and in a student step (PRE-DFKD adds some).
      bank_size: images that the bank holds.
      learning_rate: of the generator's Adam (b1 = 0.5).
      weights: of the loss terms.
      adversarial_mask: see `losses.adversarial`.
      inner_steps: generator steps within one step, for the methods that finish the
        optimisation of a batch before it is used.
      batchnorm_momentum: weight of the newest batch in the exponential moving average
        (EMA) of the batch moments; 1 keeps no history.
      augmentation: of a student's images.
      bank_policy: what a full bank keeps, `newest` or `reservoir`, see `bank`.
      average: decay of the EMA of the generator; 0 keeps none.
      two_classes: share of the images that are asked for two classes at once, which
        may be the same.
      by_class: whether teachers are combined class by class rather than by the target
        label, with statistics under their own label mix, see `ensemble`.
    """

    shape: tuple[int, int, int]
    num_classes: int
    latent_size: int
    batch_size: int
    bank_size: int
    learning_rate: float
    weights: Weights
    adversarial_mask: str
    inner_steps: int
    batchnorm_momentum: float
    augmentation: Augmentation
    bank_policy: str = "newest"
    average: float = 0.0
    two_classes: float = 0.0
    by_class: bool = False


class Study(NamedTuple):
    """How the student is trained.

    Attributes:
      steps: student steps for each step of the hop.
      total_steps: student steps of the whole hop.
      learning_rate: of Adam, falling to 2 % by a cosine over `total_steps`.
      temperature: `T` of the distillation loss.
      keep_statistics: whether BatchNorm uses the statistics that the student started
        with. A student that has learnt from real images keeps them, since statistics
        of synthetic images would be worse; a new student has none to keep.
    """

    steps: int
    total_steps: int
    learning_rate: float
    temperature: float
    keep_statistics: bool


class Hop(NamedTuple):
    """The nets and sizes of a hop.

    Attributes:
      student: the net that is taught.
      teachers: one net for each group of the `Teachers` that `step` gets.
      generator: the net that makes images.
      generation: how images are made.
      study: how the student is trained.
      clip: the norm to which gradients are clipped; 0: no clipping.
    """

    student: Net
    teachers: Sequence[Net]
    generator: Net
    generation: Generation
    study: Study
    clip: float = 0.0


class Asked(NamedTuple):
    """The generator's input: noise `[batch, latent]`, target labels `[batch]`."""

    latent: jax.Array
    labels: jax.Array


class Made(NamedTuple):
    """A batch of generated images, with the teachers' output.

    Attributes:
      images: `[batch, height, width, channels]` in [0, 1].
      labels: the target labels, `[batch]`.
      logits: the teachers', `[batch, classes]`.
      terms: the loss terms, unweighted.
      moments: see `HopState`.
      stats: BatchNorm statistics of the generator after making them.
    """

    images: jax.Array
    labels: jax.Array
    logits: jax.Array
    terms: Metrics
    moments: PyTree
    stats: PyTree = None


@struct.dataclass
class HopState:
    """Everything a hop in progress needs; checkpointed whole.

    Attributes:
      student: the net being taught.
      student_optimizer: optax state for `student.params`.
      generator: the image generator.
      generator_optimizer: optax state for what makes the images.
      bank: recent images with their labels and the teachers' logits.
      moments: EMA of the batch moments at each teacher's BatchNorm inputs, one tree per
        group of teachers, `[members, ...]`.
      extra: state that only this method has.
      one_class_steps: int32 scalar, the number of consecutive steps in which the
        teachers put every generated image into one class: the sign of a collapse.
      average: the EMA of the generator, or None.
    """

    student: Variables
    student_optimizer: PyTree
    generator: Variables
    generator_optimizer: PyTree
    bank: Bank
    moments: PyTree
    extra: PyTree
    one_class_steps: Leaf
    average: PyTree = None

    @property
    def kept(self) -> Variables:
        """The generator that is kept after the hop: the EMA, if there is one."""
        return self.generator if self.average is None else self.average


class Distiller(NamedTuple):
    """The algorithm of a hop, for one receiver.

    Attributes:
      init: `init(student, generator, teachers, key) -> HopState`, with an empty bank.
      step: `step(state, teachers, key) -> (HopState, metrics)`: makes images and takes
        the student steps that belong to them. The teachers are an argument, so no step
        can change them.
    """

    init: Callable[[Variables, Variables, Teachers, Key], HopState]
    step: Callable[[HopState, Teachers, Key], tuple[HopState, Metrics]]


class Kind(NamedTuple):
    """One entry of the registry.

    Attributes:
      build: `build(hop)`, the distiller of a hop.
      terms: the fields of `Weights` that it uses.
      keeps_generator: whether it leaves a generator that a receiver can replay.
      one_generator: whether one generator is trained from the first step to the last,
        so that it can have an EMA.
      two_classes: whether its generator can be asked for two classes at once.
      learns_weights: whether it learns one weight for each teacher by itself, so that
        these can be neither class by class (see `ensemble`) nor learned around it.
      reads_logits: whether the student learns from the teachers' logits that were
        stored with an image in the bank.
    """

    build: Callable[[Hop], Distiller]
    terms: frozenset[str]
    keeps_generator: bool = True
    one_generator: bool = False
    two_classes: bool = False
    learns_weights: bool = False
    reads_logits: bool = True
