"""The bank: a replay buffer of generated images, kept in device memory.

The policy decides what a full bank keeps: the `newest` images (a ring buffer), or a
`reservoir`, in which every image written so far is kept with the same probability
(Vitter, "Random sampling with a reservoir", ACM TOMS 1985, algorithm R).
"""

import jax
import jax.numpy as jnp
from flax import struct

from ecogen_jax.types import Key, Leaf


@struct.dataclass
class Bank:
    """Labelled generated images.

    Attributes:
      images: uint8 `[size, height, width, channels]`.
      labels: the label each image was generated for, or, by distillers without target
        labels, the class that the teachers predict; int32 `[size]`.
      logits: the teachers' logits on each image, float32 `[size, classes]`.
      written: int32 scalar, images written so far, overwritten ones included.
    """

    images: Leaf
    labels: Leaf
    logits: Leaf
    written: Leaf


def empty(size: int, shape: tuple[int, int, int], num_classes: int) -> Bank:
    """A bank with room for `size` images of `shape`."""
    return Bank(
        images=jnp.zeros((size, *shape), jnp.uint8),
        labels=jnp.zeros((size,), jnp.int32),
        logits=jnp.zeros((size, num_classes), jnp.float32),
        written=jnp.zeros((), jnp.int32),
    )


def write(
    bank: Bank,
    images: jax.Array,
    labels: jax.Array,
    logits: jax.Array,
    *,
    key: Key | None = None,
) -> Bank:
    """Adds a batch; a full bank replaces stored images.

    Args:
      bank: the bank before.
      images: uint8 `[batch, height, width, channels]`; the batch may not be larger
        than the bank.
      labels: int32 `[batch]`.
      logits: float32 `[batch, classes]`.
      key: random key of a reservoir; None keeps the newest.
    """
    size, batch = bank.labels.shape[0], labels.shape[0]
    if batch > size:
        raise ValueError(
            f"bank_size is {size} but a batch of {batch} is written: "
            "make bank_size at least the hop's batch_size"
        )
    numbers = bank.written + jnp.arange(batch, dtype=jnp.int32)
    slots = numbers % size if key is None else _drawn(numbers, size, key)
    return Bank(
        images=bank.images.at[slots].set(images, mode="drop"),
        labels=bank.labels.at[slots].set(labels, mode="drop"),
        logits=bank.logits.at[slots].set(logits, mode="drop"),
        written=bank.written + batch,
    )


def _drawn(numbers: jax.Array, size: int, key: Key) -> jax.Array:
    """Slots of a reservoir for the images of these numbers; `size` for those left out.

    Image `n` (from 0) is kept with probability `size / (n + 1)`, in the place of any.
    """
    drawn = jax.random.randint(key, numbers.shape, 0, numbers + 1)
    slots = jnp.where(numbers < size, numbers, jnp.minimum(drawn, size))
    # Of two images for the same slot the later one wins, in any order of the writes.
    later = jnp.triu(slots[:, None] == slots[None], k=1)
    return jnp.where(jnp.any(later, axis=1), size, slots)


def sample(bank: Bank, key: Key, batch: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws images (uint8), labels and logits uniformly from what was written."""
    filled = jnp.minimum(bank.written, bank.labels.shape[0])
    index = jax.random.randint(key, (batch,), 0, filled)
    return bank.images[index], bank.labels[index], bank.logits[index]
