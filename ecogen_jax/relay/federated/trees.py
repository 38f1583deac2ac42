"""Pytrees of many devices: every leaf `[devices, ...]`."""

import jax
import jax.numpy as jnp

from ecogen_jax.types import PyTree


def copies(tree: PyTree, count: int) -> PyTree:
    """`count` times the same, leaves `[count, ...]`."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf[None], count, axis=0), tree)


def chosen(condition: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
    """One of two trees, leaf by leaf.

    Args:
      condition: bool, for all `[]`, or for each device `[devices]` where leaves are
        `[devices, ...]`. Values that are not chosen may be NaN.
      yes: where it holds.
      no: where it does not, of the same shapes.
    """
    return jax.tree.map(lambda a, b: jnp.where(over(condition, a), a, b), yes, no)


def over(values: jax.Array, leaf: jax.Array) -> jax.Array:
    """`values`, `[]` or `[devices]`, with as many axes as a leaf `[devices, ...]`."""
    return values.reshape(values.shape + (1,) * (leaf.ndim - values.ndim))
