"""Accuracy from per-class hits, globally and on a party's own label distribution.

Only hits by class have to leave the device: the accuracy on any label distribution is
a weighted mean of them.
"""

import jax
import jax.numpy as jnp
import numpy as np


def class_hits(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Number of correct predictions by class.

    Args:
      logits: `[batch, classes]`.
      labels: `[batch]`; -1 marks padding, which hits nothing.

    Returns:
      float32 `[classes]`.
    """
    right = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
    return right @ jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)


def accuracy(hits: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Share of correct predictions, `sum_c hits_c / sum_c totals_c`.

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
        their share, over the classes that have test images.

    Returns:
      `[parties]`; NaN for a party without training images of such classes.
    """
    judged = np.where(totals > 0, counts, 0)
    right = (judged * (hits / np.maximum(totals, 1))).sum(axis=-1)
    return _ratio(right, judged.sum(axis=-1))


def seen_images(totals: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Test images of the classes that a party has seen, `[parties]`.

    Args:
      totals: test images of each class, `[classes]`.
      counts: each party's training images by class, `[parties, classes]`.
    """
    return np.where(counts > 0, totals, 0).sum(axis=-1)


def seen_accuracy(
    hits: np.ndarray, totals: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Accuracy on all test images of the classes that a party has seen.

    Weighted by `seen_images`, the mean over parties is the accuracy pooled over parties
    and seen classes, `sum_uc hits_uc / sum_uc totals_c`. It is what Zhu et al. 2021,
    "Data-free knowledge distillation for heterogeneous federated learning", estimate
    from as many test images of a class for each party that has seen it.

    Args:
      hits: `[parties, classes]`.
      totals: test images of each class, `[classes]`.
      counts: each party's training images by class, `[parties, classes]`.

    Returns:
      `[parties]`; NaN for a party that has seen no class of the split.
    """
    right = np.where(counts > 0, hits, 0).sum(axis=-1)
    return _ratio(right, seen_images(totals, counts))


def unseen_accuracy(
    hits: np.ndarray, totals: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Mean accuracy over the classes that a party never saw.

    Args:
      hits: correct predictions by class, `[parties, classes]`.
      totals: images of each class in the split, `[classes]`.
      counts: each party's training images by class, `[parties, classes]`.

    Returns:
      `[parties]`; NaN where a party saw every class that the split holds.
    """
    unseen = (counts == 0) & (totals > 0)
    share = np.where(unseen, hits, 0) / np.maximum(totals, 1)
    return _ratio(share.sum(axis=-1), unseen.sum(axis=-1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
