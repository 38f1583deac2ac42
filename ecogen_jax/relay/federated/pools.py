"""Running sums of messages, so that they need not be kept.

    mean_p = sum_k w_k x_k / sum_k w_k        over the devices k of pool p

A server that needs only such means can process a cohort of any size with the memory of
one net per pool. The means then replace the devices: the mean of the pool means,
weighted by their sums of weights, is the mean over all devices.
"""

import jax
import jax.numpy as jnp
from flax import struct

from ecogen_jax.relay.federated.base import Arrived
from ecogen_jax.relay.federated.trees import over
from ecogen_jax.types import Leaf, PyTree


@struct.dataclass
class Pools:
    """Sums over devices.

    Attributes:
      values: updates and facts times their weights, `[pools, ...]`.
      weights: float32 `[pools]`.
    """

    values: PyTree
    weights: Leaf


def empty(one: Arrived, count: int) -> Pools:
    """Empty pools.

    Args:
      one: the message of one device, or its shapes; float32 leaves.
      count: of pools.
    """
    values = jax.tree.map(
        lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype),
        (one.updates, one.facts),
    )
    return Pools(values, jnp.zeros(count))


def added(pools: Pools, one: Arrived) -> Pools:
    """The pools with one more device, in its edge's pool if there is one per edge."""
    taken = one.weights > 0

    def add(total: jax.Array, value: jax.Array) -> jax.Array:
        # Values with weight 0 may be NaN.
        weighted = one.weights * value
        if total.shape[0] > 1:
            return total.at[one.edge].add(jnp.where(taken, weighted, 0.0))
        # Choosing after the addition saves a CPU one pass over the update.
        return jnp.where(taken, total + weighted[None], total)

    values = jax.tree.map(add, pools.values, (one.updates, one.facts))
    return Pools(values, add(pools.weights, jnp.float32(1.0)))


def means(pools: Pools) -> Arrived:
    """The means of the pools, as if one device per pool had sent them.

    Returns:
      Entries `[pools, ...]`; that of an empty pool is zero, with weight 0.
    """
    some = jnp.where(pools.weights > 0, pools.weights, 1.0)
    updates, facts = jax.tree.map(lambda leaf: leaf / over(some, leaf), pools.values)
    edge = jnp.arange(len(pools.weights), dtype=jnp.int32)
    nobody = jnp.full_like(edge, -1)
    return Arrived(nobody, edge, updates, facts, pools.weights, pooled=True)
