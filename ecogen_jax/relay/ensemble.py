"""Several teachers as one: logits weighted by who has seen which class.

Weighted by the label that was asked for, `sum_k w[k, y_i] t_k(x_i)`, or class by class
whatever was asked for, `sum_k w[k, c] t_k(x_i)[c]`. A teacher that has seen a single
class finds it everywhere: by the label it is believed, by class it is compared with the
others. Logits of different teachers have no common zero, and each has learnt how rare a
class is with it, so by class `t_k` is `log softmax(log softmax(t_k) - log prior_k)`
(logit adjustment: Menon et al., ICLR 2021).

A teacher recorded moments of its own mix of classes. With priors, and where it is said
what was asked for, those of a batch are taken of the same mix: image `i`, generated
for class `y_i`, weighs as `prior_k(y_i)`.
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
"""Images of each class that a teacher counts as having seen besides: its logits know
little of how much rarer than rare a class is."""


@struct.dataclass
class Teachers:
    """The teachers of a hop.

    Attributes:
      groups: one entry for each architecture: variables with a leading axis over
        the members of that group.
      weights: `[teachers, classes]`, members in group order; a column sums to 1, or
        to 0 for a class that no teacher knows.
      log_priors: the share of each class in what each teacher has learnt from,
        `[teachers, classes]`, see `log_priors`; None for teachers whose logits and
        moments are taken as they are.
    """

    groups: tuple[Variables, ...]
    weights: Leaf
    log_priors: Leaf | None = None


class Judgement(NamedTuple):
    """What the teachers together make of a batch of images.

    Attributes:
      logits: weighted over teachers, `[batch, classes]`.
      batchnorm: `losses.batchnorm_statistics`, averaged with each teacher's mean
        weight.
      activation: `losses.activation`, averaged likewise.
      moments: averaged batch moments for the next call, `[members, ...]` by group.
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
    """`w_kc = sqrt(n_kc) / sum_j sqrt(n_jc)`: a few images of a class tell much of it.

    Args:
      counts: as of `label_count_weights`.

    Returns:
      `[teachers, classes]`.
    """
    return label_count_weights(jnp.sqrt(counts.astype(jnp.float32)))


def log_priors(counts: jax.Array) -> jax.Array:
    """`log((n_kc + m) / sum_j (n_kj + m))`, with `m` images of each class for nothing.

    Args:
      counts: as of `label_count_weights`.

    Returns:
      `[teachers, classes]`.
    """
    smoothed = counts.astype(jnp.float32) + PRIOR_IMAGES
    return jnp.log(smoothed / jnp.sum(smoothed, axis=1, keepdims=True))


def first_moments(teachers: Teachers) -> PyTree:
    """Where the moving average of batch moments starts: the teachers' own statistics.

    An average that starts there starts with a loss of 0 and grows into the batches'.
    """
    # Copies, since a hop's state is donated and the teachers are not.
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
      labels: the class each image was generated for, `[batch]`, to weight teachers by;
        None: class by class, under equal priors where there are `log_priors`.
      asked: the class each image was generated for, in either case, so that moments
        are taken of each teacher's mix; None: all images weigh alike.
      moments: the moving average of batch moments so far, see `Judgement`; None where
        `momentum` is 1.
      momentum: weight of this batch in it.
    """
    shares, by_class = _without_labels(teachers.weights)
    total = jnp.zeros((images.shape[0], teachers.weights.shape[1]), images.dtype)
    carry = (total, jnp.zeros(()), jnp.zeros(()))
    averages, start = [], 0
    for index, (net, group) in enumerate(zip(nets, teachers.groups, strict=True)):
        size = jax.tree.leaves(group)[0].shape[0]
        rows = slice(start, start + size)
        weights = (by_class if labels is None else teachers.weights)[rows]
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
        own = (group, weights, shares[rows], priors, before)
        carry, after = jax.lax.scan(member, carry, own)
        averages.append(jax.lax.stop_gradient(after))
    return Judgement(*carry, tuple(averages))


def _rows(priors: Leaf | None, rows: slice) -> Leaf | None:
    """Those of some teachers, `[teachers, 1, classes]`."""
    return None if priors is None else priors[rows, None]


def _own_mix(
    log_prior: jax.Array | None, asked: jax.Array | None
) -> contextlib.AbstractContextManager[None]:
    """Weighs a batch as if its classes were as frequent as they are with a teacher."""
    if log_prior is None or asked is None:
        return contextlib.nullcontext()
    return weighing(jax.nn.softmax(log_prior[0, asked]))


def _said(
    logits: jax.Array,
    weight: jax.Array,
    log_prior: jax.Array | None,
    labels: jax.Array | None,
) -> jax.Array:
    """What one teacher adds to the logits, see `ensemble`."""
    if labels is not None:
        return weight[labels][:, None] * logits
    if log_prior is not None:
        logits = jax.nn.log_softmax(jax.nn.log_softmax(logits) - log_prior)
    return weight[None] * logits


def _without_labels(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean weight of each teacher, summing to 1; and its weight for each class."""
    shares = jnp.mean(weights, axis=1)
    shares = shares / jnp.sum(shares)
    known = jnp.sum(weights, axis=0, keepdims=True) > 0
    # A class that nobody knows keeps the logit that the teachers give it.
    return shares, jnp.where(known, weights, shares[:, None])
