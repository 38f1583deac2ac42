"""Aggregators: one update from the updates of the participating clients.

Every aggregator gets updates with a leading client axis and one weight per client. A
client with weight 0 has not taken part: its values are ignored, even NaN or infinity.
The values of all other clients have to be finite. The weights may be traced. If no
client takes part, the update is zero.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ecogen_jax.relay.federated.trees import over
from ecogen_jax.types import PyTree

Weights = Float[Array, " clients"]
Aggregator = Callable[[PyTree, jax.Array], PyTree]

TRIM = 0.2
"""Share of the clients that `trimmed_mean` drops at each end."""


def mean(updates: PyTree, weights: Weights) -> PyTree:
    """Weighted mean, `sum_k w_k x_k / sum_k w_k`.

    McMahan et al., "Communication-efficient learning of deep networks from
    decentralized data", AISTATS 2017, with `w_k` the client's number of samples.

    Args:
      updates: float leaves `[clients, ...]`.
      weights: at least 0, `[clients]`.

    Returns:
      Leaves `[...]`.
    """
    total = jnp.sum(weights)
    shares = weights / jnp.where(total > 0, total, 1.0)

    def leaf(values: jax.Array) -> jax.Array:
        present = jnp.where(over(weights > 0, values), values, 0.0)
        # At the highest precision, or accelerators would round its factors. A CPU takes
        # 70 times as long for an elementwise product and a sum over clients.
        highest = jax.lax.Precision.HIGHEST
        return jnp.tensordot(shares, present, axes=1, precision=highest)

    return jax.tree.map(leaf, updates)


def median(updates: PyTree, weights: Weights) -> PyTree:
    """Median of each coordinate; of an even number, the mean of the middle two.

    Yin et al., "Byzantine-robust distributed learning: towards optimal statistical
    rates", ICML 2018, definition 1. All who take part count alike.

    Args:
      updates: float leaves `[clients, ...]`.
      weights: 0 for a client that has not taken part, `[clients]`.

    Returns:
      Leaves `[...]`.
    """
    last = _num_present(weights) - 1
    return _mean_of_ranks(updates, weights, last // 2, (last + 1) // 2)


def trimmed_mean(updates: PyTree, weights: Weights) -> PyTree:
    """Mean of each coordinate without its lowest and its highest values.

    Of `n` clients that take part, `floor(TRIM n)` are dropped at each end: fewer than
    five clients are all kept. Yin et al., "Byzantine-robust distributed learning:
    towards optimal statistical rates", ICML 2018, definition 2. All who take part count
    alike.

    Args:
      updates: float leaves `[clients, ...]`.
      weights: 0 for a client that has not taken part, `[clients]`.

    Returns:
      Leaves `[...]`.
    """
    present = _num_present(weights)
    dropped = jnp.floor(TRIM * present.astype(jnp.float32)).astype(jnp.int32)
    return _mean_of_ranks(updates, weights, dropped, present - 1 - dropped)


AGGREGATORS: dict[str, Aggregator] = {
    "mean": mean,
    "median": median,
    "trimmed_mean": trimmed_mean,
}


def _mean_of_ranks(
    updates: PyTree, weights: jax.Array, first: jax.Array, last: jax.Array
) -> PyTree:
    """Plain mean of the values ranked `first` to `last`, from 0, in each coordinate."""
    ranks = jnp.arange(weights.shape[0])
    # If no client takes part, the middle two are the ranks -1 and 0.
    kept = (ranks >= first) & (ranks <= last) & (ranks < _num_present(weights))
    count = jnp.maximum(jnp.sum(kept), 1).astype(jnp.float32)

    def leaf(values: jax.Array) -> jax.Array:
        # Absent clients are sorted behind all present ones.
        present = jnp.where(over(weights > 0, values), values, jnp.inf)
        ordered = jnp.sort(present, axis=0)
        return jnp.sum(jnp.where(over(kept, ordered), ordered, 0.0), axis=0) / count

    return jax.tree.map(leaf, updates)


def _num_present(weights: jax.Array) -> jax.Array:
    return jnp.sum(weights > 0, dtype=jnp.int32)
