"""Few arrays in place of many.

Each array of a program has one buffer on each JAX device. With 250 simulated devices on
two cores, placing and passing the buffers of a small array takes 2 ms.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ecogen_jax.types import Leaf, PyTree

_BITS = {1: "uint8", 2: "uint16", 4: "uint32"}
"""The dtype in which numbers of so many bytes are packed."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["arrays"],
    meta_fields=["shapes", "structure"],
)
@dataclass(frozen=True)
class Packed:
    """The arrays of a tree side by side, one row per entry of their leading axis.

    Attributes:
      arrays: the bits of the numbers, `[rows, values]`, by the unsigned dtype of their
        size: one array for all numbers of the same number of bytes.
      shapes: of each leaf, without its leading axis, and its dtype.
      structure: of the tree.
    """

    arrays: dict[str, Leaf]
    shapes: tuple[tuple[tuple[int, ...], str], ...]
    structure: jax.tree_util.PyTreeDef


def packed(tree: PyTree) -> Packed:
    """Packs arrays `[rows, ...]` of numbers of up to four bytes; no truth values.

    Arrays of the host stay there. An array is not copied if no other has numbers of as
    many bytes.

    Raises:
      KeyError: a number has more bytes.
    """
    leaves, structure = jax.tree.flatten(tree)
    rows: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        bits = _BITS[leaf.dtype.itemsize]
        row = _as(bits, leaf.reshape(leaf.shape[0], -1))
        rows.setdefault(bits, []).append(row)
    return Packed(
        {bits: _side_by_side(each) for bits, each in rows.items()},
        tuple((leaf.shape[1:], leaf.dtype.name) for leaf in leaves),
        structure,
    )


def unpacked(tree: PyTree) -> PyTree:
    """The tree that was packed; any other tree as it is."""
    if not isinstance(tree, Packed):
        return tree
    begins = dict.fromkeys(tree.arrays, 0)
    leaves = []
    for shape, dtype in tree.shapes:
        bits = _BITS[jnp.dtype(dtype).itemsize]
        array, begin = tree.arrays[bits], begins[bits]
        begins[bits] = end = begin + math.prod(shape)
        leaf = _as(dtype, array[:, begin:end])
        leaves.append(leaf.reshape(array.shape[0], *shape))
    return jax.tree.unflatten(tree.structure, leaves)


def _as(dtype: str, rows: Leaf) -> Leaf:
    """The same bits as another dtype."""
    if isinstance(rows, np.ndarray):
        return np.ascontiguousarray(rows).view(jnp.dtype(dtype))
    return jax.lax.bitcast_convert_type(rows, dtype)


def _side_by_side(rows: Sequence[Leaf]) -> Leaf:
    if len(rows) == 1:
        return rows[0]
    host = all(isinstance(each, np.ndarray) for each in rows)
    return (np if host else jnp).concatenate(rows, axis=1)
