"""Distillation on fresh images: for methods with no bank and no target labels.

DAFL, ZSKT, DFAD, DFQ and PRE-DFKD share this code on top of the engine. The generator
is conditional, so a label is part of its input, but no loss ties an image to that
label: the label of an image is the class that the teachers predict. Each batch is also
written into the bank, so that a report can show it; the student is not trained from the
bank.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ecogen_jax import keys
from ecogen_jax.nets.functional import Output, Variables
from ecogen_jax.relay.augmentation import augmented
from ecogen_jax.relay.distillers import engine
from ecogen_jax.relay.distillers.base import Hop, HopState, Made
from ecogen_jax.relay.distillers.engine import StudentStep
from ecogen_jax.relay.ensemble import Teachers, ensemble
from ecogen_jax.types import Key, PyTree

Answer = Callable[[jax.Array], PyTree]
Loss = Callable[[PyTree, Output], jax.Array]
Source = Callable[[HopState, Teachers, Key], jax.Array]


def train_generator(
    hop: Hop, state: HopState, received: Teachers, key: Key, **how: Any
) -> tuple[HopState, Made]:
    """One step of the generator.

    Args:
      hop: its nets, sizes and weights.
      state: of the hop.
      received: the teachers.
      key: of the noise.
      **how: the divergence and the temperature of the adversarial term, see
        `engine.judge`.

    Returns:
      The state with the generator after the step, and the batch from before the step.
    """
    params, optimizer, made = engine.improve(
        engine.fresh_images(hop, received, state, asks=False, **how),
        engine.generator_adam(hop),
        state.generator.params,
        state.generator_optimizer,
        key,
    )
    seen = jnp.argmax(made.logits, axis=-1).astype(jnp.int32)
    made = made._replace(labels=seen)
    state = engine.remember(hop, state, received, made, key)
    return engine.renewed(hop, state, params, made, optimizer), made


def images(hop: Hop, state: HopState, received: Teachers, key: Key) -> jax.Array:
    """Images of the generator from new noise; the same key gives the same noise.

    BatchNorm uses batch statistics, as in its training. If the generator has an EMA,
    each of the two makes one half.
    """
    asked = engine.draw(hop, received, key)

    def made(generator: Variables, some: slice) -> jax.Array:
        latent, labels = asked.latent[some], asked.labels[some]
        return hop.generator.apply(generator, latent, labels, train=True).value

    if state.average is None:
        return made(state.generator, slice(None))
    half = hop.generation.batch_size // 2
    first, second = slice(half), slice(half, None)
    return jnp.concatenate([made(state.generator, first), made(state.average, second)])


def study_fresh(hop: Hop, source: Source, loss: Loss) -> StudentStep:
    """The student's steps, each on images of its own, in one scan.

    Images are augmented first; the teachers' logits are those of the augmented images.

    Args:
      hop: its nets and sizes.
      source: makes the images of one step from state, teachers and key.
      loss: of the teachers' logits and the student's output.

    Returns:
      A function of state, teachers and key; its second result is the mean loss.
    """
    augmentation = hop.generation.augmentation

    def steps(
        state: HopState, received: Teachers, key: Key
    ) -> tuple[HopState, jax.Array]:
        def one(state: HopState, key: Key) -> tuple[HopState, jax.Array]:
            batch = source(state, received, keys.stream(key, "images"))
            batch = augmented(batch, key, augmentation)
            target = ensemble(hop.teachers, received, batch).logits
            return engine.teach(hop, state, batch, lambda output: loss(target, output))

        return _scan(hop, one, state, key)

    return steps


def study_batch(
    hop: Hop, state: HopState, key: Key, batch: jax.Array, answer: Answer, loss: Loss
) -> tuple[HopState, jax.Array]:
    """The student's steps, all on the same images.

    Args:
      hop: its nets and sizes.
      state: of the hop.
      key: of the augmentation; if there is one, the teachers' logits are recomputed.
      batch: the images, `[batch, height, width, channels]`.
      answer: the teachers' output on images.
      loss: of the teachers' answer and the student's output.

    Returns:
      The state after the steps, and the mean loss.
    """
    augmentation, told = hop.generation.augmentation, answer(batch)

    def one(state: HopState, key: Key) -> tuple[HopState, jax.Array]:
        seen, target = batch, told
        if augmentation.changes:
            seen = augmented(batch, key, augmentation)
            target = answer(seen)
        return engine.teach(hop, state, seen, lambda output: loss(target, output))

    return _scan(hop, one, state, key)


def _scan(
    hop: Hop,
    one: Callable[[HopState, Key], tuple[HopState, jax.Array]],
    state: HopState,
    key: Key,
) -> tuple[HopState, jax.Array]:
    step_keys = jax.random.split(keys.stream(key, "student"), hop.study.steps)
    state, values = jax.lax.scan(one, state, step_keys)
    return state, jnp.mean(values)
