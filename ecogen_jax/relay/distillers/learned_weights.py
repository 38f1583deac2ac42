"""Weights of the teachers that are learned while the hop makes images.

Dai et al., "Enhancing one-shot federated learning through data and ensemble
co-boosting", ICLR 2024. With the logits `t = sum_k w_k t_k` of all teachers on images
of the bank, and the labels `y` for which these were made, one step per batch:

    w moves by  -0.01 * 0.99^step * sign(d CE(t, y) / d w), clamped to [0, 1]

Differs from the published recipe:

- The weights are normalised by their sum, so that they do not scale the logits. Their
  gradient, weighted by them, sums to 0, so they never all decrease together.
- A step is on one batch of the bank, which holds the new images already (published:
  from the second batch on, on every batch made before).

Logits that the bank keeps are those of the weights at the time. The teachers are not
asked again, unless a student's images are augmented. A student learns from the weights
of before the step, that of Co-Boosting from those after it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ecogen_jax import keys, losses
from ecogen_jax.nets.classifier import to_unit
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay import bank as banks
from ecogen_jax.relay.bank import Bank
from ecogen_jax.relay.distillers.base import Distiller, Hop, HopState, Metrics
from ecogen_jax.relay.ensemble import Teachers, ensemble
from ecogen_jax.types import Key, PyTree

# The constants are the defaults of the published code.
RATE, DECAY = 0.01, 0.99
LEAST = 1e-6  # not 0, so that the sum is never 0


class Learned(NamedTuple):
    """The weights so far.

    Attributes:
      weights: of the teachers, `[teachers]` in [0, 1].
      batches: int32 scalar, how many were made.
    """

    weights: jax.Array
    batches: jax.Array


class Extra(NamedTuple):
    """`HopState.extra` of a distiller that is told these weights.

    Attributes:
      learned: the weights.
      own: the state that only the distiller has.
    """

    learned: Learned
    own: PyTree


def first(received: Teachers) -> Learned:
    """Each teacher's share of the weights with which they come."""
    shares = jnp.sum(received.weights, axis=1) / jnp.sum(received.weights)
    return Learned(shares, jnp.zeros((), jnp.int32))


def heard(received: Teachers, learned: Learned) -> Teachers:
    """The teachers with the learned weights, for every class that is known.

    A teacher that comes with weight 0 for all classes keeps weight 0.
    """
    known = jnp.sum(received.weights, axis=0) > 0
    present = jnp.sum(received.weights, axis=1) > 0
    weights = jnp.where(present, learned.weights, 0.0)
    shares = weights / jnp.sum(weights)
    return replace(received, weights=shares[:, None] * known[None].astype(shares.dtype))


def moved(
    hop: Hop, received: Teachers, learned: Learned, bank: Bank, key: Key
) -> Learned:
    """The weights after one step on images of the bank."""
    stored, labels, _ = banks.sample(bank, key, hop.generation.batch_size)
    images = to_unit(stored)

    def error(weights: jax.Array) -> jax.Array:
        told = heard(received, learned._replace(weights=weights))
        seen = ensemble(hop.teachers, told, images, labels)
        return losses.cross_entropy(seen.logits, labels)

    rate = RATE * DECAY ** learned.batches.astype(jnp.float32)
    weights = learned.weights - rate * jnp.sign(jax.grad(error)(learned.weights))
    return Learned(jnp.clip(weights, LEAST, 1.0), learned.batches + 1)


def with_learned_weights(build: Callable[[Hop], Distiller], hop: Hop) -> Distiller:
    """A distiller whose teachers are weighted by what was learned so far.

    Args:
      build: of the distiller; it writes images with their target labels into the bank.
      hop: its nets and sizes.
    """
    distiller = build(hop)

    def init(
        taught: Variables, made: Variables, received: Teachers, key: Key
    ) -> HopState:
        state = distiller.init(taught, made, received, key)
        return replace(state, extra=Extra(first(received), state.extra))

    def step(state: HopState, received: Teachers, key: Key) -> tuple[HopState, Metrics]:
        extra: Extra = state.extra
        told = heard(received, extra.learned)
        state, metrics = distiller.step(replace(state, extra=extra.own), told, key)
        drawn = keys.stream(key, "weights")
        learned = moved(hop, received, extra.learned, state.bank, drawn)
        return replace(state, extra=Extra(learned, state.extra)), metrics

    return Distiller(init, step)
