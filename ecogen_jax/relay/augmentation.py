"""Augmentation of training images: random shifts and horizontal flips.

The usual augmentation on CIFAR-10 (He et al., "Deep residual learning for image
recognition", CVPR 2016, section 4.2: padding by 4 pixels, a random crop, and a
horizontal flip), except that shifts repeat the edge pixels instead of padding with
black.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ecogen_jax import keys
from ecogen_jax.types import Key


class Augmentation(NamedTuple):
    """The changes of an image each time that it is trained on.

    Attributes:
      shift: largest shift in pixels along each side; 0 for none.
      flip: whether each image is mirrored left to right with a chance of one half.
    """

    shift: int = 0
    flip: bool = False

    @property
    def changes(self) -> bool:
        """Whether images are changed at all."""
        return self.shift > 0 or self.flip


NONE = Augmentation()


def augmented(images: jax.Array, key: Key, augmentation: Augmentation) -> jax.Array:
    """Images `[batch, height, width, channels]` of any type, changed one by one."""
    if augmentation.shift:
        images = shifted(images, keys.stream(key, "shift"), augmentation.shift)
    if augmentation.flip:
        images = flipped(images, keys.stream(key, "flip"))
    return images


def shifted(images: jax.Array, key: Key, most: int) -> jax.Array:
    """Moves each image by its own random offset of up to `most` pixels a side.

    Pixels from outside repeat the edge pixel.
    """
    batch, height, width, channels = images.shape
    sides = [(0, 0), (most, most), (most, most), (0, 0)]
    padded = jnp.pad(images, sides, mode="edge")
    offsets = jax.random.randint(key, (batch, 2), 0, 2 * most + 1)

    def one(image: jax.Array, offset: jax.Array) -> jax.Array:
        start = (offset[0], offset[1], 0)
        return jax.lax.dynamic_slice(image, start, (height, width, channels))

    return jax.vmap(one)(padded, offsets)


def flipped(images: jax.Array, key: Key) -> jax.Array:
    """Mirrors each image left to right with a chance of one half."""
    turned = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(turned, images[:, :, ::-1], images)
