"""Random streams: keys are derived by name and index, never threaded.

With a threaded key, an added draw changes every later draw. A derived key depends only
on the root, the name of its stream and its indices (round, client, ...), so adding a
stream does not change the others, and a resumed run needs no saved key.
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ecogen_jax.types import Key, Leaf


def root(seed: int) -> Key:
    """Makes the one key of a run.

    Args:
      seed: the run's seed, in [0, 2**32).

    Returns:
      The typed key that all streams of the run are derived from.
    """
    return jax.random.key(seed)


def data(key: Key) -> np.ndarray:
    """The numbers of a key on the host, uint32; two of them for JAX's default keys."""
    return np.asarray(jax.random.key_data(key))


def moment(key: np.ndarray, cycle: int, number: int) -> np.ndarray:
    """The run's key, a cycle and a round in one array of the host.

    A program gets one argument in place of three, each of which would be copied to each
    JAX device.

    Args:
      key: the run's, as `data` gives it.
      cycle: its number.
      number: of the round, from 0.

    Returns:
      uint32, one after the other, see `of_moment`.
    """
    return np.array([*key, cycle, number], np.uint32)


def of_moment(moment: Leaf) -> tuple[Key, Array, Array]:
    """The key, the cycle and the round of a `moment`, the latter two as int32."""
    numbers = jnp.asarray(moment)
    cycle, number = numbers[-2:].astype(jnp.int32)
    return jax.random.wrap_key_data(numbers[:-2]), cycle, number


def stream(key: Key, name: str, *indices: int | Array) -> Key:
    """Derives the key of one named stream.

    The name enters as its CRC-32, which is the same in every process and version of
    Python (`hash` is not).

    Args:
      key: the root, or the key of an enclosing stream.
      name: what the draws are for, such as "pretrain/batches".
      *indices: non-negative counters, each folded in turn; may be traced.

    Returns:
      The key of the stream at those indices.
    """
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    for index in indices:
        key = jax.random.fold_in(key, index)
    return key
