"""The replay bank: generated images kept in device memory, oldest overwritten."""

import jax
import jax.numpy as jnp
from flax import struct

from ecogen_jax.types import Key, Leaf


@struct.dataclass
class Bank:
    """A ring buffer of labelled generated images.

    Attributes:
      images: uint8 `[size, height, width, channels]`.
      labels: the label each image was generated for, int32 `[size]`.
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


def write(bank: Bank, images: jax.Array, labels: jax.Array, logits: jax.Array) -> Bank:
    """Appends a batch, going round at the end.

    Args:
      bank: the bank before.
      images: uint8 `[batch, height, width, channels]`; the batch may not be larger
        than the bank.
      labels: int32 `[batch]`.
      logits: float32 `[batch, classes]`.
    """
    size, batch = bank.labels.shape[0], labels.shape[0]
    if batch > size:
        raise ValueError(
            f"bank_size is {size} but a batch of {batch} is written: "
            "make bank_size at least the hop's batch_size"
        )
    slots = (bank.written + jnp.arange(batch)) % size
    return Bank(
        images=bank.images.at[slots].set(images),
        labels=bank.labels.at[slots].set(labels),
        logits=bank.logits.at[slots].set(logits),
        written=bank.written + batch,
    )


def sample(bank: Bank, key: Key, batch: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws images (uint8), labels and logits uniformly from what was written."""
    filled = jnp.minimum(bank.written, bank.labels.shape[0])
    index = jax.random.randint(key, (batch,), 0, filled)
    return bank.images[index], bank.labels[index], bank.logits[index]
