"""Co-Boosting: harder images and a better ensemble, each made with the other.

Dai et al., "Enhancing one-shot federated learning through data and ensemble
co-boosting", ICLR 2024. With the ensemble's logits `t = sum_k w_k t_k`, its softmax `p`
and a new generator for each batch:

    G, z minimise  mean_i (1 - p_i[y_i]) CE(t_i, y_i) - 3^2 KL(p^(3) || q^(3))
    w moves by     -0.01 * 0.99^step * sign(d CE(t, y) / d w), clamped to [0, 1]
    S minimises    T^2 KL(softmax(t(x') / T) || softmax(s(x') / T))

where `p^(3)` and `q^(3)` have temperature 3, and an image is perturbed in the direction
in which the ensemble's output changes most along a random `u ~ U(-1, 1)^classes` (ODS:
Tashiro et al., NeurIPS 2020),

    x' = x + 8/255 sign(d/dx u . softmax(t(x) / 4))

Differs from the published recipe:

- The weights are normalised by their sum, so that they do not scale the logits. Their
  gradient, weighted by them, sums to 0, so they never all decrease together. One step
  per batch of images, on one batch of the bank, which holds the new images already
  (published: from the second batch on, on every batch made before). They start at the
  hop's `teacher_weights` (published: equal).
- Perturbed images are clipped to [0, 1], and 8/255 is in units of [0, 1].
- Student: Adam with a cosine schedule instead of SGD at 0.01 with momentum, weight
  decay and gradients clipped at norm 10; a ring buffer of the newest images.
- Generator: the conditional one of this project, which starts with larger kernels than
  the published N(0, 0.02), so that a step of the same rate turns them less: the
  published rate is too small here. Gradients are not clipped, since Adam rescales them
  anyway.
- One batch size for generator and student, and the budget, are the config's.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ecogen_jax import keys, losses
from ecogen_jax.nets.classifier import to_unit
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay import bank as banks
from ecogen_jax.relay.augmentation import augmented
from ecogen_jax.relay.distillers import engine, inversion
from ecogen_jax.relay.distillers.base import (
    Distiller,
    Hop,
    HopState,
    Kind,
    Metrics,
)
from ecogen_jax.relay.ensemble import Teachers, ensemble
from ecogen_jax.types import Key, PyTree

# The constants are the defaults of the published code.
WEIGHT_RATE, WEIGHT_DECAY = 0.01, 0.99
ADVERSARIAL_TEMPERATURE = 3.0
PUSH, PUSH_TEMPERATURE = 8 / 255, 4.0
LEAST_WEIGHT = 1e-6  # not 0, so that the sum is never 0


class Boosting(NamedTuple):
    """State of this method.

    Attributes:
      weights: of the teachers, `[teachers]` in [0, 1].
      batches: int32 scalar, how many were made.
    """

    weights: jax.Array
    batches: jax.Array


def co_boosting(hop: Hop) -> Distiller:
    """Builds the distiller."""

    def init(
        taught: Variables, made: Variables, received: Teachers, key: Key
    ) -> HopState:
        del key  # unused: nothing is random
        shares = jnp.sum(received.weights, axis=1) / jnp.sum(received.weights)
        extra = Boosting(shares, jnp.zeros((), jnp.int32))
        return engine.begin(hop, taught, made, received, extra=extra)

    def step(state: HopState, received: Teachers, key: Key) -> tuple[HopState, Metrics]:
        extra: Boosting = state.extra
        state, made, _ = inversion.from_scratch(
            hop,
            heard(received, extra.weights),
            state,
            key,
            terms=_hard,
            temperature=ADVERSARIAL_TEMPERATURE,
        )
        weights = boost(hop, received, state, keys.stream(key, "weights"))
        state = replace(state, extra=Boosting(weights, extra.batches + 1))
        state, loss = study_pushed(hop, heard(received, weights), state, key)
        return state, engine.metrics(state, made, loss)

    return Distiller(init, step)


def _hard(params: PyTree, made: engine.Made, key: Key) -> Metrics:
    return {"cross_entropy": losses.hard_cross_entropy(made.logits, made.labels)}


def heard(received: Teachers, weights: jax.Array) -> Teachers:
    """The teachers with weights `[teachers]`, for every class that is known.

    A teacher that comes with weight 0 for all classes keeps weight 0.
    """
    known = jnp.sum(received.weights, axis=0) > 0
    present = jnp.sum(received.weights, axis=1) > 0
    weights = jnp.where(present, weights, 0.0)
    shares = weights / jnp.sum(weights)
    return replace(received, weights=shares[:, None] * known[None].astype(shares.dtype))


def boost(hop: Hop, received: Teachers, state: HopState, key: Key) -> jax.Array:
    """One step of the teachers' weights on images of the bank, `[teachers]`."""
    extra: Boosting = state.extra
    stored, labels, _ = banks.sample(state.bank, key, hop.generation.batch_size)
    images = to_unit(stored)

    def error(weights: jax.Array) -> jax.Array:
        seen = ensemble(hop.teachers, heard(received, weights), images, labels)
        return losses.cross_entropy(seen.logits, labels)

    rate = WEIGHT_RATE * WEIGHT_DECAY ** extra.batches.astype(jnp.float32)
    weights = extra.weights - rate * jnp.sign(jax.grad(error)(extra.weights))
    return jnp.clip(weights, LEAST_WEIGHT, 1.0)


def study_pushed(
    hop: Hop, received: Teachers, state: HopState, key: Key
) -> tuple[HopState, jax.Array]:
    """The student's steps on perturbed images of the bank, and the mean loss."""
    loss, generation = engine.softened(hop), hop.generation

    def one(state: HopState, key: Key) -> tuple[HopState, jax.Array]:
        stored, labels, _ = banks.sample(state.bank, key, generation.batch_size)
        images = augmented(to_unit(stored), key, generation.augmentation)
        images = pushed(hop, received, images, labels, keys.stream(key, "push"))
        target = ensemble(hop.teachers, received, images, labels).logits
        return engine.teach(hop, state, images, lambda output: loss(target, output))

    stream = jax.random.split(keys.stream(key, "student"), hop.study.steps)
    state, values = jax.lax.scan(one, state, stream)
    return state, jnp.mean(values)


def pushed(
    hop: Hop,
    received: Teachers,
    images: jax.Array,
    labels: jax.Array,
    key: Key,
) -> jax.Array:
    """Images perturbed by `PUSH` to change the ensemble's softmax most, in [0, 1]."""
    classes = hop.generation.num_classes
    direction = jax.random.uniform(key, (len(images), classes), minval=-1.0)

    def answer(images: jax.Array) -> jax.Array:
        logits = ensemble(hop.teachers, received, images, labels).logits
        return jnp.sum(direction * jax.nn.softmax(logits / PUSH_TEMPERATURE))

    moved = images + PUSH * jnp.sign(jax.grad(answer)(images))
    return jnp.clip(moved, 0.0, 1.0)


CO_BOOSTING = Kind(
    co_boosting,
    frozenset(("cross_entropy", "batchnorm", "adversarial")),
    by_class=False,  # it learns one weight per teacher
    reads_logits=False,  # the teachers are evaluated on perturbed images
)
