"""The relay distiller: conditional generator, replay bank, fresh or warm student.

One step trains the generator once against the teachers and the student, writes its
images into the bank, and then takes several student steps on the bank:

    G minimises  a CE(t, y) + b L_bn + c L_adv + d L_balance
    S minimises  T^2 KL(softmax(t / T) || softmax(s / T))

The parts are those that data-free distillation shares (see `ecogen_jax.losses` for
the equations): teacher cross-entropy and class balance (DAFL, Chen et al., ICCV 2019),
BatchNorm statistics (DeepInversion, Yin et al., CVPR 2020), adversarial disagreement
(ZSKT, Micaelli and Storkey, NeurIPS 2019; DFAD, Fang et al., 2019), and a bank of all
recent images (CMI, Fang et al., IJCAI 2021), here a ring buffer in device memory.
Teachers may be an ensemble weighted by label counts (FedFTG, Zhang et al., CVPR 2022).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ecogen_jax import keys, losses
from ecogen_jax.nets.classifier import to_bytes, to_unit
from ecogen_jax.nets.functional import Net, Variables
from ecogen_jax.relay import bank as banks
from ecogen_jax.relay.distillers.base import Distiller, HopState, Metrics
from ecogen_jax.relay.ensemble import Teachers, ensemble
from ecogen_jax.relay.optimizer import adam, descend
from ecogen_jax.types import Key, PyTree


class Weights(NamedTuple):
    """Weights of the generator's loss terms."""

    cross_entropy: float
    batchnorm: float
    adversarial: float
    balance: float


class Generation(NamedTuple):
    """How the generator is trained.

    Attributes:
      shape: height, width and channels of one image.
      num_classes: number of labels.
      latent_size: length of the noise vector.
      batch_size: images in a generator step and in a student step.
      bank_size: images that the bank holds.
      learning_rate: of the generator's Adam (b1 = 0.5).
      weights: of the loss terms.
      adversarial_mask: see `losses.adversarial`.
    """

    shape: tuple[int, int, int]
    num_classes: int
    latent_size: int
    batch_size: int
    bank_size: int
    learning_rate: float
    weights: Weights
    adversarial_mask: str


class Study(NamedTuple):
    """How the student is trained.

    Attributes:
      steps: student steps for each generator step.
      total_steps: student steps of the whole hop.
      learning_rate: of Adam, falling to 2 % by a cosine over `total_steps`.
      temperature: `T` of the distillation loss.
      keep_statistics: whether BatchNorm runs on the statistics that the student came
        with. A student that has learnt from real images keeps them, since those of
        synthetic images would be worse; a fresh student has none to keep.
    """

    steps: int
    total_steps: int
    learning_rate: float
    temperature: float
    keep_statistics: bool


def relay(
    student: Net,
    teachers: Sequence[Net],
    generator: Net,
    *,
    generation: Generation,
    study: Study,
) -> Distiller:
    """Builds the distiller.

    Args:
      student: the net to be taught.
      teachers: one net for each group of the `Teachers` that `step` gets.
      generator: takes latent `[batch, latent]` and labels `[batch]`.
      generation: how the generator is trained.
      study: how the student is trained.
    """
    student_tx = adam(study.learning_rate, total_steps=study.total_steps)
    generator_tx = optax.adam(generation.learning_rate, b1=0.5)
    train_student = _student_step(student, student_tx, study, generation.batch_size)
    objective = _generator_objective(student, teachers, generator, generation)

    def init(taught: Variables, made: Variables) -> HopState:
        return HopState(
            student=taught,
            student_optimizer=student_tx.init(taught.params),
            generator=made,
            generator_optimizer=generator_tx.init(made.params),
            bank=banks.empty(
                generation.bank_size, generation.shape, generation.num_classes
            ),
        )

    def step(state: HopState, received: Teachers, key: Key) -> tuple[HopState, Metrics]:
        grads, made = jax.grad(objective, has_aux=True)(
            state.generator.params, state, received, keys.stream(key, "generator")
        )
        params, optimizer = descend(
            generator_tx, grads, state.generator_optimizer, state.generator.params
        )
        state = replace(
            state,
            generator=Variables(params, made.stats),
            generator_optimizer=optimizer,
            bank=banks.write(
                state.bank, to_bytes(made.images), made.labels, made.logits
            ),
        )
        study_keys = jax.random.split(keys.stream(key, "student"), study.steps)
        state, loss = jax.lax.scan(train_student, state, study_keys)
        return state, {**made.terms, "distillation": jnp.mean(loss)}

    return Distiller(init, step)


class _Made(NamedTuple):
    images: jax.Array
    labels: jax.Array
    logits: jax.Array
    stats: PyTree
    terms: Metrics


GeneratorObjective = Callable[
    [PyTree, HopState, Teachers, Key], tuple[jax.Array, _Made]
]
StudentStep = Callable[[HopState, Key], tuple[HopState, jax.Array]]


def _generator_objective(
    student: Net, teachers: Sequence[Net], generator: Net, generation: Generation
) -> GeneratorObjective:
    """The generator's loss and what it made, as a function of its parameters."""
    batch, weights = generation.batch_size, generation.weights

    def objective(
        params: PyTree, state: HopState, received: Teachers, key: Key
    ) -> tuple[jax.Array, _Made]:
        labels = draw_labels(keys.stream(key, "labels"), received.weights, batch)
        latent = jax.random.normal(
            keys.stream(key, "latent"), (batch, generation.latent_size)
        )
        variables = Variables(params, state.generator.stats)
        made = generator.apply(variables, latent, labels, train=True)
        target, prior = ensemble(teachers, received, made.value, labels)
        guess = student.apply(state.student, made.value, train=False).value
        terms = {
            "cross_entropy": losses.cross_entropy(target, labels),
            "batchnorm": prior,
            "adversarial": losses.adversarial(
                target, guess, mask=generation.adversarial_mask
            ),
            "balance": losses.class_balance(target),
        }
        weighted = [getattr(weights, name) * term for name, term in terms.items()]
        return jnp.sum(jnp.stack(weighted)), _Made(
            made.value, labels, target, made.stats, terms
        )

    return objective


def _student_step(
    student: Net, tx: optax.GradientTransformation, study: Study, batch_size: int
) -> StudentStep:
    """One distillation step on images drawn from the bank."""

    def objective(
        params: PyTree, stats: PyTree, images: jax.Array, target: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        output = student.apply(
            Variables(params, stats), images, train=not study.keep_statistics
        )
        loss = losses.distillation(target, output.value, temperature=study.temperature)
        return loss, output.stats

    def step(state: HopState, key: Key) -> tuple[HopState, jax.Array]:
        images, _, target = banks.sample(state.bank, key, batch_size)
        taught = state.student
        (loss, stats), grads = jax.value_and_grad(objective, has_aux=True)(
            taught.params, taught.stats, to_unit(images), target
        )
        params, optimizer = descend(tx, grads, state.student_optimizer, taught.params)
        state = replace(
            state, student=Variables(params, stats), student_optimizer=optimizer
        )
        return state, loss

    return step


def draw_labels(key: Key, weights: jax.Array, batch: int) -> jax.Array:
    """Draws labels uniformly from the classes that some teacher knows.

    Args:
      key: random key.
      weights: `[teachers, classes]`; a class whose column is zero is never drawn.
      batch: number of labels.

    Returns:
      int32 `[batch]`.
    """
    known = jnp.sum(weights, axis=0) > 0
    log_share = jnp.where(known, 0.0, -jnp.inf)
    return jax.random.categorical(key, log_share, shape=(batch,)).astype(jnp.int32)
