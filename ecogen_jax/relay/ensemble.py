"""Several teachers as one: logits weighted by who has seen which class."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct

from ecogen_jax import losses
from ecogen_jax.nets.functional import Net, Variables
from ecogen_jax.types import Leaf


@struct.dataclass
class Teachers:
    """The teachers of a hop.

    Attributes:
      groups: one entry for each architecture: variables with a leading axis over
        the members of that group.
      weights: `[teachers, classes]`, members in group order; a column sums to 1, or
        to 0 for a class that no teacher knows.
    """

    groups: tuple[Variables, ...]
    weights: Leaf


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


def ensemble(
    nets: Sequence[Net], teachers: Teachers, images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Runs all teachers, in inference mode, on images meant to show `labels`.

    Args:
      nets: one net for each group of `teachers`.
      teachers: their variables and weights.
      images: `[batch, height, width, channels]` in [0, 1].
      labels: the class each image was generated for, `[batch]`.

    Returns:
      The weighted logits `sum_k w[k, y_i] t_k(x_i)`, `[batch, classes]`, and the
      BatchNorm-statistics loss averaged with each teacher's mean weight.
    """
    logits = jnp.zeros((images.shape[0], teachers.weights.shape[1]), images.dtype)
    prior = jnp.zeros((), images.dtype)
    start = 0
    for net, group in zip(nets, teachers.groups, strict=True):
        size = jax.tree.leaves(group)[0].shape[0]
        weights = teachers.weights[start : start + size]
        start += size

        def member(
            carry: tuple[jax.Array, jax.Array],
            inputs: tuple[Variables, jax.Array],
            net: Net = net,
        ) -> tuple[tuple[jax.Array, jax.Array], None]:
            variables, weight = inputs
            output = net.apply(variables, images, train=False)
            statistics = losses.batchnorm_statistics(output.moments, variables.stats)
            share = jnp.mean(weight) / jnp.mean(jnp.sum(teachers.weights, axis=0))
            total, prior = carry
            total = total + weight[labels][:, None] * output.value
            return (total, prior + share * statistics), None

        (logits, prior), _ = jax.lax.scan(member, (logits, prior), (group, weights))
    return logits, prior
