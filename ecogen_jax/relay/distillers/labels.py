"""Target labels: the classes that generated images are asked for."""

import math

import jax
import jax.numpy as jnp

from ecogen_jax import keys
from ecogen_jax.relay.distillers.base import Hop
from ecogen_jax.relay.ensemble import Teachers
from ecogen_jax.types import Key


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


def label_shares(
    hop: Hop, received: Teachers, first: jax.Array, key: Key
) -> jax.Array | None:
    """The shares of classes in each image, `[batch, classes]`; None if all have one.

    The first images of a batch, as many as `Generation.two_classes` asks for, have a
    second class, drawn as the first was, and so at times the same. The share of the
    first is uniform in [0.5, 1).
    """
    batch, classes = first.shape[0], hop.generation.num_classes
    count = math.ceil(hop.generation.two_classes * batch)
    if not count:
        return None
    second = draw_labels(keys.stream(key, "second label"), received.weights, batch)
    share = jax.random.uniform(keys.stream(key, "share"), (batch, 1), minval=0.5)
    share = jnp.where(jnp.arange(batch)[:, None] < count, share, 1.0)
    one, other = (jax.nn.one_hot(each, classes) for each in (first, second))
    return share * one + (1 - share) * other
