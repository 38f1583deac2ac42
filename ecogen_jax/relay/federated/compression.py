"""Compression of updates before they cross a link, and decompression.

All functions are for one client. The bytes of a payload are those of its arrays.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from ecogen_jax.types import PyTree

COMPRESSIONS = ("none", "bf16", "int8", "topk")


class Compression(NamedTuple):
    """A way to compress updates.

    Attributes:
      encode: `encode(update) -> payload`, of float32 leaves.
      decode: `decode(payload) -> update`, float32 leaves of the shapes that were
        encoded. A value that is not finite leaves some value that is not.
      feeds_back: whether the error is large enough to be carried to the next round, see
        `carried`.
    """

    encode: Callable[[PyTree], PyTree]
    decode: Callable[[PyTree], PyTree]
    feeds_back: bool


@struct.dataclass
class Quantised:
    """Every leaf as bytes.

    Attributes:
      values: int8, the shapes of the update.
      scales: float32 scalars, what a step of 1 stands for in each leaf.
    """

    values: PyTree
    scales: PyTree


@struct.dataclass
class Sparse:
    """The largest values of every leaf.

    Attributes:
      values: float32 `[k]` in each leaf.
      indices: int32 `[k]`, their places in the flattened leaf.
    """

    values: PyTree
    indices: PyTree


def compression(name: str, *, keep: float, like: PyTree) -> Compression:
    """Builds a compression by its name.

    Args:
      name: `none`; `bf16`, half the bytes; `int8`, a quarter, by a scale for each leaf;
        `topk`, a share of the values, eight bytes each.
      keep: share of the values in each leaf that `topk` sends, in (0, 1].
      like: an update, or its `ShapeDtypeStruct`s: what `topk` decodes to.

    Raises:
      ValueError: there is no such name, or `keep` is out of range.
    """
    if name not in COMPRESSIONS:
        raise ValueError(f"compression is {name!r}; allowed: {', '.join(COMPRESSIONS)}")
    if not 0.0 < keep <= 1.0:
        raise ValueError(
            f"keep is {keep}: allowed is a share from above 0 to 1 (all values), such "
            "as 0.05"
        )
    if name == "bf16":
        return Compression(_rounded, _widened, feeds_back=False)
    if name == "int8":
        return Compression(_quantised, _scaled, feeds_back=True)
    if name == "topk":
        return _topk(keep, like)
    return Compression(lambda update: update, lambda payload: payload, feeds_back=False)


def carried(
    compression: Compression, update: PyTree, error: PyTree
) -> tuple[PyTree, PyTree]:
    """Compresses an update together with the error of earlier rounds.

        payload = C(x + e),  e' = x + e - decode(payload)

    so that the error is sent later (error feedback: Seide et al., "1-bit
    stochastic gradient descent and its application to data-parallel distributed
    training of speech DNNs", Interspeech 2014; Karimireddy et al., "Error feedback
    fixes SignSGD and other gradient compression schemes", ICML 2019, algorithm 2).

    Args:
      compression: how.
      update: of this round.
      error: the error so far, like `update`; zeros in the first round.

    Returns:
      The payload, and the new error. If the payload does not arrive, the client has to
      keep its old error.
    """
    wanted = jax.tree.map(jnp.add, update, error)
    payload = compression.encode(wanted)
    return payload, jax.tree.map(jnp.subtract, wanted, compression.decode(payload))


def _rounded(update: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), update)


def _widened(payload: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), payload)


def _quantised(update: PyTree) -> Quantised:
    """Nearest multiples of `max |x| / 127`."""
    scales = jax.tree.map(lambda leaf: jnp.max(jnp.abs(leaf)) / 127.0, update)

    def quantise(leaf: jax.Array, scale: jax.Array) -> jax.Array:
        steps = leaf / jnp.where(scale > 0, scale, 1.0)
        return jnp.round(steps).astype(jnp.int8)

    return Quantised(jax.tree.map(quantise, update, scales), scales)


def _scaled(payload: Quantised) -> PyTree:
    return jax.tree.map(
        lambda values, scale: values.astype(jnp.float32) * scale,
        payload.values,
        payload.scales,
    )


def _topk(keep: float, like: PyTree) -> Compression:
    def largest(leaf: jax.Array) -> jax.Array:
        count = max(1, round(keep * leaf.size))
        return jax.lax.top_k(jnp.abs(leaf).ravel(), count)[1]

    def encode(update: PyTree) -> Sparse:
        indices = jax.tree.map(largest, update)
        values = jax.tree.map(lambda leaf, at: leaf.ravel()[at], update, indices)
        return Sparse(values, indices)

    def decode(payload: Sparse) -> PyTree:
        def place(
            leaf: jax.Array | jax.ShapeDtypeStruct, values: jax.Array, at: jax.Array
        ) -> jax.Array:
            empty = jnp.zeros(leaf.size, jnp.float32)
            return empty.at[at].set(values).reshape(leaf.shape)

        return jax.tree.map(place, like, payload.values, payload.indices)

    return Compression(encode, decode, feeds_back=True)
