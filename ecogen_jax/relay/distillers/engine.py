"""The engine of a hop: the parts from which distillers are built.

A step of any distiller: draw noise and target labels (`draw`), make images from them
and compute their loss terms (`judge`), update the generator (`improve`), write the
images into the bank (`remember`), and train the student on the bank (`study_bank`) or
on given images (`teach`). Teachers always run in inference mode. The student runs in
inference mode while images are judged, and in training mode while it is trained, unless
it keeps the statistics of real images (`Study.keep_statistics`).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ecogen_jax import keys, losses
from ecogen_jax.nets.classifier import to_bytes, to_unit
from ecogen_jax.nets.functional import Output, Variables
from ecogen_jax.relay import bank as banks
from ecogen_jax.relay.augmentation import augmented
from ecogen_jax.relay.distillers.base import (
    COLLAPSE,
    Asked,
    Hop,
    HopState,
    Made,
    Metrics,
    Weights,
)
from ecogen_jax.relay.distillers.labels import draw_labels, label_shares
from ecogen_jax.relay.ensemble import Teachers, ensemble, first_moments
from ecogen_jax.relay.optimizer import adam, clipped, descend
from ecogen_jax.types import Key, PyTree

Objective = Callable[[PyTree, Key], tuple[jax.Array, Made]]
StudentLoss = Callable[[jax.Array, Output], jax.Array]
StudentStep = Callable[[HopState, Teachers, Key], tuple[HopState, jax.Array]]


def student_adam(hop: Hop) -> optax.GradientTransformation:
    """The student's optimiser: Adam with a cosine schedule over the whole hop."""
    study = hop.study
    return clipped(adam(study.learning_rate, total_steps=study.total_steps), hop.clip)


def generator_adam(hop: Hop) -> optax.GradientTransformation:
    """The generator's optimiser: Adam with `b1 = 0.5`."""
    return clipped(optax.adam(hop.generation.learning_rate, b1=0.5), hop.clip)


def begin(
    hop: Hop,
    taught: Variables,
    made: Variables,
    received: Teachers,
    *,
    optimizer: PyTree = None,
    extra: PyTree = None,
) -> HopState:
    """The first state of a hop, with an empty bank.

    Args:
      hop: its nets and sizes.
      taught: the student.
      made: the generator.
      received: the teachers.
      optimizer: optimiser state of the parameters that make images.
      extra: state that only the method has.
    """
    generation = hop.generation
    return HopState(
        student=taught,
        student_optimizer=student_adam(hop).init(taught.params),
        generator=made,
        generator_optimizer=optimizer,
        bank=banks.empty(
            generation.bank_size, generation.shape, generation.num_classes
        ),
        moments=first_moments(received) if generation.batchnorm_momentum < 1 else None,
        extra=extra,
        one_class_steps=jnp.zeros((), jnp.int32),
        average=made if generation.average else None,
    )


def first_state(
    hop: Hop, tx: optax.GradientTransformation | None = None
) -> Callable[[Variables, Variables, Teachers, Key], HopState]:
    """The `init` of a method that keeps nothing of its own and draws nothing.

    `tx` is the optimiser of a generator that is trained from step to step.
    """

    def init(
        taught: Variables, made: Variables, received: Teachers, key: Key
    ) -> HopState:
        del key
        optimizer = tx.init(made.params) if tx else None
        return begin(hop, taught, made, received, optimizer=optimizer)

    return init


def draw(hop: Hop, received: Teachers, key: Key) -> Asked:
    """Normal noise, and labels drawn from the classes that some teacher knows."""
    batch, latent_size = hop.generation.batch_size, hop.generation.latent_size
    return Asked(
        jax.random.normal(keys.stream(key, "latent"), (batch, latent_size)),
        draw_labels(keys.stream(key, "labels"), received.weights, batch),
    )


def judge(
    hop: Hop,
    received: Teachers,
    state: HopState,
    images: jax.Array,
    labels: jax.Array,
    *,
    asks: bool = True,
    shares: jax.Array | None = None,
    divergence: str = "kl",
    temperature: float = 1.0,
) -> Made:
    """The unweighted loss terms of images, from teachers and student.

    A term whose weight is 0 is not computed.

    Args:
      hop: its nets, sizes and weights.
      received: the teachers.
      state: its student, in inference mode, is the adversary.
      images: `[batch, height, width, channels]` in [0, 1].
      labels: the target labels, `[batch]`.
      asks: whether the target labels are used: to combine teachers, and to weight
        moments by each teacher's own label mix (see `ensemble`).
      shares: of classes, `[batch, classes]`, where images have more than their label.
      divergence: of the adversarial term, `kl`, `js` or `l1`.
      temperature: of the adversarial term.
    """
    generation = hop.generation
    seen = ensemble(
        hop.teachers,
        received,
        images,
        labels if asks and not generation.by_class else None,
        asked=labels if asks else None,
        moments=state.moments,
        momentum=generation.batchnorm_momentum,
    )

    def adversarial() -> jax.Array:
        guess = hop.student.apply(state.student, images, train=False).value
        apart = _apart(seen.logits, guess, divergence, temperature)
        return losses.adversarial(
            apart, seen.logits, guess, mask=generation.adversarial_mask
        )

    terms = {
        "cross_entropy": lambda: _off_target(seen.logits, labels, shares),
        "one_hot": lambda: losses.one_hot(seen.logits),
        "batchnorm": lambda: seen.batchnorm,
        "activation": lambda: seen.activation,
        "adversarial": adversarial,
        "balance": lambda: losses.class_balance(seen.logits),
        "total_variation": lambda: losses.total_variation(images),
    }
    weights = generation.weights._asdict()
    used = {name: term() for name, term in terms.items() if weights[name]}
    moments = seen.moments if generation.batchnorm_momentum < 1 else None
    return Made(images, labels, seen.logits, used, moments)


def _off_target(
    logits: jax.Array, labels: jax.Array, shares: jax.Array | None
) -> jax.Array:
    if shares is None:
        return losses.cross_entropy(logits, labels)
    return losses.label_divergence(logits, shares)


def _apart(
    teacher: jax.Array, student: jax.Array, divergence: str, temperature: float
) -> jax.Array:
    if divergence == "l1":
        return losses.logit_distance(teacher, student)
    measure = {"kl": losses.kl_divergence, "js": losses.js_divergence}[divergence]
    return measure(teacher, student, temperature)


def weighted(weights: Weights, terms: Metrics) -> jax.Array:
    """The sum of the terms, each times its weight."""
    return jnp.sum(jnp.stack([getattr(weights, name) * terms[name] for name in terms]))


def fresh_images(
    hop: Hop, received: Teachers, state: HopState, **how: Any
) -> Objective:
    """The objective of a generator that gets new noise and labels in each step.

    Args:
      hop: its nets, sizes and weights.
      received: the teachers.
      state: of the hop.
      **how: see `judge`.

    Returns:
      A function of the generator's parameters and a key.
    """

    def objective(params: PyTree, key: Key) -> tuple[jax.Array, Made]:
        asked = draw(hop, received, key)
        variables = Variables(params, state.generator.stats)
        shares = label_shares(hop, received, asked.labels, key)
        code = asked.labels if shares is None else shares
        output = hop.generator.apply(variables, asked.latent, code, train=True)
        made = judge(
            hop, received, state, output.value, asked.labels, shares=shares, **how
        )
        made = made._replace(stats=output.stats)
        return weighted(hop.generation.weights, made.terms), made

    return objective


def improve(
    objective: Objective,
    tx: optax.GradientTransformation,
    params: PyTree,
    optimizer: PyTree,
    key: Key,
) -> tuple[PyTree, PyTree, Made]:
    """One step of gradient descent: parameters, optimiser state, and the batch made."""
    grads, made = jax.grad(objective, has_aux=True)(params, key)
    params, optimizer = descend(tx, grads, optimizer, params)
    return params, optimizer, made


def invert(
    objective: Objective,
    tx: optax.GradientTransformation,
    params: PyTree,
    key: Key,
    *,
    steps: int,
) -> tuple[PyTree, Made]:
    """Optimises one batch for all its steps, as model inversion does.

    Args:
      objective: of the parameters, which include everything that makes the batch.
      tx: the optimiser, with a new state.
      params: where to start.
      key: split over the steps.
      steps: how many steps.

    Returns:
      The parameters after the last step, and the batch with the lowest loss; if any
      loss was not finite, its batch, so that the error is noticed.
    """
    first = jax.eval_shape(objective, params, key)
    best = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), first[1])

    def step(carry: PyTree, key: Key) -> tuple[PyTree, None]:
        params, optimizer, least, best = carry
        (loss, made), grads = jax.value_and_grad(objective, has_aux=True)(params, key)
        taken = (loss < least) | ~jnp.isfinite(loss)
        best = jax.tree.map(lambda a, b: jnp.where(taken, a, b), made, best)
        params, optimizer = descend(tx, grads, optimizer, params)
        # Minus infinity: nothing that follows a loss that is not finite is taken.
        least = jnp.where(jnp.isfinite(loss), jnp.minimum(loss, least), -jnp.inf)
        return (params, optimizer, least, best), None

    start = (params, tx.init(params), jnp.asarray(jnp.inf), best)
    (params, _, _, best), _ = jax.lax.scan(step, start, jax.random.split(key, steps))
    return params, best


def remember(
    hop: Hop, state: HopState, received: Teachers, made: Made, key: Key
) -> HopState:
    """Writes a batch into the bank, and updates the detection of a collapse."""
    found = jnp.argmax(made.logits, axis=-1)
    known = jnp.sum(jnp.any(received.weights > 0, axis=0))
    collapsed = jnp.all(found == found[0]) & (known > 1)
    reservoir = hop.generation.bank_policy == "reservoir"
    return replace(
        state,
        bank=banks.write(
            state.bank,
            to_bytes(made.images),
            made.labels,
            made.logits,
            key=keys.stream(key, "bank") if reservoir else None,
        ),
        moments=made.moments,
        one_class_steps=jnp.where(collapsed, state.one_class_steps + 1, 0),
    )


def renewed(
    hop: Hop, state: HopState, params: PyTree, made: Made, optimizer: PyTree
) -> HopState:
    """The state after a step of a generator that is kept, with its EMA.

        average = decay average + (1 - decay) generator

    Do et al., "Momentum adversarial distillation", NeurIPS 2022.
    """
    generator, decay = Variables(params, made.stats), hop.generation.average
    average = state.average
    if decay:
        average = jax.tree.map(
            lambda old, new: decay * old + (1 - decay) * new, average, generator
        )
    return replace(
        state, generator=generator, generator_optimizer=optimizer, average=average
    )


def metrics(state: HopState, made: Made, distillation: jax.Array) -> Metrics:
    """The metrics of a step: every loss term, and the detection of a collapse."""
    return {
        **made.terms,
        "distillation": jnp.mean(distillation),
        COLLAPSE: state.one_class_steps.astype(jnp.float32),
    }


def softened(hop: Hop) -> StudentLoss:
    """Distillation at the hop's temperature."""

    def loss(target: jax.Array, output: Output) -> jax.Array:
        return losses.distillation(
            target, output.value, temperature=hop.study.temperature
        )

    return loss


def teach(
    hop: Hop, state: HopState, images: jax.Array, loss: Callable[[Output], jax.Array]
) -> tuple[HopState, jax.Array]:
    """One step of the student on images in [0, 1]: the new state, and the loss."""
    taught = state.student

    def objective(params: PyTree) -> tuple[jax.Array, PyTree]:
        variables = Variables(params, taught.stats)
        train = not hop.study.keep_statistics
        output = hop.student.apply(variables, images, train=train)
        return loss(output), output.stats

    (value, stats), grads = jax.value_and_grad(objective, has_aux=True)(taught.params)
    params, optimizer = descend(
        student_adam(hop), grads, state.student_optimizer, taught.params
    )
    student = Variables(params, stats)
    return replace(state, student=student, student_optimizer=optimizer), value


def study_bank(hop: Hop, loss: StudentLoss) -> StudentStep:
    """The student's steps on images drawn from the bank, in one scan.

    If images are augmented, the teachers' logits are recomputed on the augmented
    images.

    Args:
      hop: its nets and sizes.
      loss: of the teachers' logits and the student's output.

    Returns:
      A function of state, teachers and key; its second result is the mean loss.
    """
    augmentation, batch = hop.generation.augmentation, hop.generation.batch_size

    def one(
        state: HopState, received: Teachers, key: Key
    ) -> tuple[HopState, jax.Array]:
        stored, labels, target = banks.sample(state.bank, key, batch)
        images = to_unit(stored)
        if augmentation.changes:
            images = augmented(images, key, augmentation)
            by_label = None if hop.generation.by_class else labels
            target = ensemble(hop.teachers, received, images, by_label).logits
        return teach(hop, state, images, lambda output: loss(target, output))

    def steps(
        state: HopState, received: Teachers, key: Key
    ) -> tuple[HopState, jax.Array]:
        state, values = jax.lax.scan(
            lambda state, key: one(state, received, key),
            state,
            jax.random.split(keys.stream(key, "student"), hop.study.steps),
        )
        return state, jnp.mean(values)

    return steps
