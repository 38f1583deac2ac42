"""An ensemble of teachers: how their logits and statistics are combined.

There are two ways to combine the logits `t_k` of teachers `k` on an image `x_i` that
was generated for the target label `y_i`:

1. By the target label: `sum_k w[k, y_i] t_k(x_i)`. All logits of a teacher get its
   weight for the target label.
2. Class by class: `sum_k w[k, c] t_k(x_i)[c]` for each class `c`, whatever the target
   label. Here the logits are first adjusted for the teacher's label prior,
   `log softmax(log softmax(t_k) - log prior_k)` (logit adjustment: Menon et al., ICLR
   2021), because logits of different teachers have no common zero, and each teacher has
   also learnt how rare a class is in its own data.

A teacher that has seen a single class predicts it on every image. The first way takes
its word for images of that class; the second compares it with the other teachers.

Weights are equal, from label counts, or learned during the hop, one a teacher
(`distillers/learned_weights.py`).

The statistics term is the mean of the teachers' `losses.batchnorm_statistics`, each
weighted by the teacher's mean weight. A teacher's running feature statistics come from
its own label mix. So with priors and target labels (`asked`), the statistics of a
generated batch are weighted by the same mix: image `i` has a weight proportional to
`prior_k(y_i)`. In a relay cycle this is an approximation: a device's fine-tuning also
sees generated images, of all classes alike, and its prior is that of its own images.
"""

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from ecogen_jax import losses
from ecogen_jax.nets.functional import Net, Variables, weighing
from ecogen_jax.types import Leaf, PyTree

PRIOR_IMAGES = 10.0
"""Pseudo-count: images added to each class of each teacher. Its logits do not tell a
rare class from an even rarer one."""


@struct.dataclass
class Teachers:
    """The teachers of a hop.

    Attributes:
      groups: one entry for each architecture: variables with a leading axis over
        the members of that group.
      weights: `[teachers, classes]`, members in group order; a column sums to 1, or
        to 0 for a class that no teacher knows.
      log_priors: log share of each class in the training data of each teacher,
        `[teachers, classes]`, see `log_priors`; None if logits and statistics of the
        teachers are not adjusted.
    """

    groups: tuple[Variables, ...]
    weights: Leaf
    log_priors: Leaf | None = None


class Judgement(NamedTuple):
    """The output of all teachers together on a batch of images.

    Attributes:
      logits: weighted sum over teachers, `[batch, classes]`.
      batchnorm: `losses.batchnorm_statistics`, averaged with each teacher's mean
        weight.
      activation: `losses.activation`, averaged likewise.
      moments: EMA of the batch moments for the next call, `[members, ...]` by group.
    """

    logits: jax.Array
    batchnorm: jax.Array
    activation: jax.Array
    moments: PyTree


def label_count_weights(counts: jax.Array) -> jax.Array:
    """Weight of each teacher for each class, `w_kc = n_kc / sum_j n_jc`.

    As FedFTG (Zhang et al., CVPR 2022, section 3.2) and FedGen (Zhu et al., ICML 2021)
    weight clients by their share of a label.

    Args:
      counts: training images of each class behind each teacher,
        `[teachers, classes]`.

    Returns:
      `[teachers, classes]`; a class that nobody has seen gets a column of zeros.
    """
    counts = counts.astype(jnp.float32)
    total = jnp.sum(counts, axis=0, keepdims=True)
    return counts / jnp.maximum(total, 1.0)


def equal_weights(counts: jax.Array) -> jax.Array:
    """The plain ensemble: `1 / teachers` for every class that any of them has seen."""
    seen = jnp.sum(counts, axis=0, keepdims=True) > 0
    return jnp.broadcast_to(seen.astype(jnp.float32) / counts.shape[0], counts.shape)


def by_class_weights(counts: jax.Array) -> jax.Array:
    """`w_kc = sqrt(n_kc) / sum_j sqrt(n_jc)`: a few images teach much of a class.

    Args:
      counts: as of `label_count_weights`.

    Returns:
      `[teachers, classes]`.
    """
    return label_count_weights(jnp.sqrt(counts.astype(jnp.float32)))


def log_priors(counts: jax.Array) -> jax.Array:
    """`log((n_kc + m) / sum_j (n_kj + m))`, with a pseudo-count `m` for each class.

    Args:
      counts: as of `label_count_weights`.

    Returns:
      `[teachers, classes]`.
    """
    smoothed = counts.astype(jnp.float32) + PRIOR_IMAGES
    return jnp.log(smoothed / jnp.sum(smoothed, axis=1, keepdims=True))


def first_moments(teachers: Teachers) -> PyTree:
    """First value of the EMA of batch moments: the teachers' own statistics.

    With this start, the loss on statistics starts near 0: at `momentum` times that of
    the first batch.
    """
    # Copies, since the state of a hop is donated but its teachers are not.
    return tuple(jax.tree.map(jnp.copy, group.stats) for group in teachers.groups)


def ensemble(
    nets: Sequence[Net],
    teachers: Teachers,
    images: jax.Array,
    labels: jax.Array | None = None,
    *,
    asked: jax.Array | None = None,
    moments: PyTree = None,
    momentum: float = 1.0,
) -> Judgement:
    """Runs all teachers, in inference mode, on images.

    Args:
      nets: one net for each group of `teachers`.
      teachers: their variables and weights.
      images: `[batch, height, width, channels]` in [0, 1].
      labels: the target label of each image, `[batch]`, to combine teachers by it;
        None: class by class, with prior-adjusted logits if there are `log_priors`.
      asked: the target label of each image, in both cases, to weight moments by each
        teacher's label mix; None: all images have equal weight.
      moments: the EMA of the batch moments so far, see `Judgement`; None if `momentum`
        is 1.
      momentum: weight of this batch in it.
    """
    shares, by_class = _weights(teachers.weights)
    total = jnp.zeros((images.shape[0], teachers.weights.shape[1]), images.dtype)
    carry = (total, jnp.zeros(()), jnp.zeros(()))
    averages, start = [], 0
    for index, (net, group) in enumerate(zip(nets, teachers.groups, strict=True)):
        size = jax.tree.leaves(group)[0].shape[0]
        rows = slice(start, start + size)
        start += size
        before = group.stats if moments is None else moments[index]

        def member(carry: PyTree, inputs: PyTree, net: Net = net) -> PyTree:
            logits, batchnorm, activation = carry
            variables, weight, share, prior, before = inputs
            with _own_mix(prior, asked):
                output = net.apply(variables, images, train=False)
            after = jax.tree.map(
                lambda new, old: momentum * new + (1.0 - momentum) * old,
                output.moments,
                before,
            )
            statistics = losses.batchnorm_statistics(after, variables.stats)
            excited = losses.activation(output.activations[-1])
            return (
                logits + _said(output.value, weight, prior, labels),
                batchnorm + share * statistics,
                activation + share * excited,
            ), after

        priors = _rows(teachers.log_priors, rows)
        own = (group, by_class[rows], shares[rows], priors, before)
        carry, after = jax.lax.scan(member, carry, own)
        averages.append(jax.lax.stop_gradient(after))
    return Judgement(*carry, tuple(averages))


def _rows(priors: Leaf | None, rows: slice) -> Leaf | None:
    """The priors of some teachers, `[teachers, 1, classes]`."""
    return None if priors is None else priors[rows, None]


def _own_mix(
    log_prior: jax.Array | None, asked: jax.Array | None
) -> contextlib.AbstractContextManager[None]:
    """Weights a batch as if its classes had the frequencies of a teacher's data."""
    if log_prior is None or asked is None:
        return contextlib.nullcontext()
    return weighing(jax.nn.softmax(log_prior[0, asked]))


def _said(
    logits: jax.Array,
    weight: jax.Array,
    log_prior: jax.Array | None,
    labels: jax.Array | None,
) -> jax.Array:
    """The contribution of one teacher to the logits, see `ensemble`."""
    if labels is not None:
        return weight[labels][:, None] * logits
    if log_prior is not None:
        logits = jax.nn.log_softmax(jax.nn.log_softmax(logits) - log_prior)
    return weight[None] * logits


def _weights(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean weight of each teacher, summing to 1; and its weight for each class."""
    shares = jnp.mean(weights, axis=1)
    shares = shares / jnp.sum(shares)
    known = jnp.sum(weights, axis=0, keepdims=True) > 0
    # A class that no teacher knows keeps the logit that the teachers give it. By label,
    # it is that of an image in the bank, made by the devices of an earlier round.
    return shares, jnp.where(known, weights, shares[:, None])
