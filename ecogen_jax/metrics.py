"""Accuracy from per-class hits, globally and on one party's own distribution.

Hits by class are all that has to leave the device: the accuracy on any label
distribution is a weighted mean of them.
"""

import jax
import jax.numpy as jnp
import numpy as np


def class_hits(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Right answers by class.

    Args:
      logits: `[batch, classes]`.
      labels: `[batch]`; -1 marks padding, which hits nothing.

    Returns:
      float32 `[classes]`.
    """
    right = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
    return right @ jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)


def accuracy(hits: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Share of right answers, `sum_c hits_c / sum_c totals_c`.

    Args:
      hits: `[..., classes]`.
      totals: test images of each class, `[classes]`.
    """
    return hits.sum(axis=-1) / totals.sum()


def own_accuracy(
    hits: np.ndarray, totals: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Accuracy on a party's own label distribution, `sum_c p_c hits_c / totals_c`.

    Args:
      hits: `[parties, classes]`.
      totals: test images of each class, `[classes]`.
      counts: each party's training images by class, `[parties, classes]`; `p` is
        their share.
    """
    share = counts / counts.sum(axis=-1, keepdims=True)
    return (share * hits / totals).sum(axis=-1)
