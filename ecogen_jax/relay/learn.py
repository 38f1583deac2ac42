"""Supervised training and distillation of one net: every phase that is not a hop.

The loss of a step is

    CE(net(x), y) on own labelled images            (where the party has data)
  + w T^2 KL(softmax(t / T) || softmax(net(x') / T)) on images with teacher logits

Pre-training and local training use only the first term. A device that fine-tunes adds
the second against forgetting: replay of generated images (Shin et al., "Continual
learning with deep generative replay", NeurIPS 2017), with the logits of the student as
the device received it. The second term only is distillation on given images (Hinton et
al., "Distilling the knowledge in a neural network", 2015), used for the baselines of a
hop.
"""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from ecogen_jax import keys, losses
from ecogen_jax.nets.classifier import to_unit
from ecogen_jax.nets.functional import Net, Variables
from ecogen_jax.relay.augmentation import NONE, Augmentation, augmented
from ecogen_jax.relay.optimizer import adam, descend
from ecogen_jax.types import Key, Leaf, PyTree

CHUNK = 500
"""Images that a teacher is asked about in one call."""


@struct.dataclass
class Data:
    """Labelled images of one party, padded to a common length.

    Attributes:
      images: uint8 `[length, height, width, channels]`.
      labels: int32 `[length]`.
      size: int32 scalar, how many of them are real; the rest is padding.
    """

    images: Leaf
    labels: Leaf
    size: Leaf


@struct.dataclass
class Replay:
    """Images with the target logits of a learner.

    Attributes:
      images: uint8 `[size, height, width, channels]`.
      logits: float32 `[size, classes]`.
    """

    images: Leaf
    logits: Leaf


@struct.dataclass
class Material:
    """The training material of a party: one of the two, or both.

    Attributes:
      data: its own labelled images, or None.
      replay: images with logits, or None.
    """

    data: Data | None
    replay: Replay | None


@struct.dataclass
class State:
    """A net in training.

    Attributes:
      variables: parameters and BatchNorm statistics.
      optimizer: optax state for the parameters.
    """

    variables: Variables
    optimizer: PyTree


class Learner(NamedTuple):
    """Training of one party as two pure functions.

    Attributes:
      init: `init(variables) -> State`.
      step: `step(state, material, key) -> (State, metrics)`.
    """

    init: Callable[[Variables], State]
    step: Callable[[State, Material, Key], tuple[State, dict[str, jax.Array]]]


def learner(
    net: Net,
    *,
    batch_size: int,
    learning_rate: float,
    total_steps: int,
    temperature: float,
    replay_weight: float,
    augmentation: Augmentation = NONE,
) -> Learner:
    """Builds the training of one party.

    Args:
      net: the party's net.
      batch_size: images drawn per step from each available source.
      learning_rate: of Adam, falling to 2 % by a cosine over `total_steps`.
      total_steps: steps of the whole phase.
      temperature: `T` of the distillation term.
      replay_weight: `w` of the distillation term.
      augmentation: of own images.
    """
    tx = adam(learning_rate, total_steps=total_steps)

    def init(variables: Variables) -> State:
        return State(variables, tx.init(variables.params))

    def objective(
        params: PyTree, stats: PyTree, material: Material, key: Key
    ) -> tuple[jax.Array, tuple[PyTree, dict[str, jax.Array]]]:
        images, labels, target = _batch(material, key, batch_size, augmentation)
        output = net.apply(Variables(params, stats), images, train=True)
        terms, parts = {}, []
        if labels is not None:
            own = output.value[: labels.shape[0]]
            terms["cross_entropy"] = losses.cross_entropy(own, labels)
            parts.append(terms["cross_entropy"])
        if target is not None:
            replayed = output.value[-target.shape[0] :]
            terms["distillation"] = losses.distillation(
                target, replayed, temperature=temperature
            )
            parts.append(replay_weight * terms["distillation"])
        loss = functools.reduce(operator.add, parts)
        return loss, (output.stats, terms)

    def step(
        state: State, material: Material, key: Key
    ) -> tuple[State, dict[str, jax.Array]]:
        before = state.variables
        grads, (stats, terms) = jax.grad(objective, has_aux=True)(
            before.params, before.stats, material, key
        )
        params, optimizer = descend(tx, grads, state.optimizer, before.params)
        return State(Variables(params, stats), optimizer), terms

    return Learner(init, step)


def _batch(
    material: Material, key: Key, size: int, augmentation: Augmentation
) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
    """Own images, then replayed ones, through the net as one batch."""
    data, replay = material.data, material.replay
    pictures, labels, target = [], None, None
    if data is not None:
        index = jax.random.randint(keys.stream(key, "data"), (size,), 0, data.size)
        labels = data.labels[index]
        pictures.append(augmented(data.images[index], key, augmentation))
    if replay is not None:
        count = replay.logits.shape[0]
        index = jax.random.randint(keys.stream(key, "replay"), (size,), 0, count)
        target = replay.logits[index]
        pictures.append(replay.images[index])
    return to_unit(jnp.concatenate(pictures)), labels, target


def asked(net: Net, variables: Variables, images: jax.Array) -> Replay:
    """Computes a teacher's logits on images, in inference mode and chunk by chunk.

    Args:
      net: the teacher's net.
      variables: the teacher's.
      images: uint8 `[size, height, width, channels]`.

    Returns:
      The images with the teacher's logits.
    """
    logits = in_chunks(
        lambda some: net.apply(variables, to_unit(some), train=False).value, images
    )
    return Replay(images, logits)


def in_chunks(ask: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """The output of `ask` on arrays, for a bounded number of rows at a time.

    Args:
      ask: maps `[chunk, ...]` of each array to `[chunk, classes]`; the last chunk is
        filled with rows of zeros.
      *arrays: `[size, ...]`.

    Returns:
      `[size, classes]`.
    """
    size = arrays[0].shape[0]
    chunk = min(CHUNK, size)

    def split(array: jax.Array) -> jax.Array:
        rest = array.shape[1:]
        padded = jnp.pad(array, [(0, -size % chunk), *len(rest) * [(0, 0)]])
        return padded.reshape(-1, chunk, *rest)

    found = jax.lax.map(lambda some: ask(*some), tuple(split(a) for a in arrays))
    return found.reshape(-1, found.shape[-1])[:size]
