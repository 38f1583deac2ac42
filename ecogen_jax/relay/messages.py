"""The only payloads that may cross a link, each of which knows its size.

No type here has room for a sample of anybody's data, and `audit` checks that the
generated images that do cross are not copies of real ones.
"""

import hashlib
from collections.abc import Iterable, Iterator, Set
from typing import NamedTuple

import jax
import numpy as np
from flax import struct

from ecogen_jax.nets.functional import Variables
from ecogen_jax.types import Leaf


@struct.dataclass
class TeacherWeights:
    """A sender's net, for a receiver that trains the generator itself.

    Attributes:
      variables: parameters and BatchNorm statistics.
      label_counts: how many training images of each class stand behind it,
        `[classes]`; the receiver weights its teachers by them.
    """

    variables: Variables
    label_counts: Leaf


@struct.dataclass
class SyntheticSet:
    """Generated images with the sender's logits, for a receiver that only distils.

    Attributes:
      images: uint8 `[size, height, width, channels]`.
      logits: float32 `[size, classes]`.
    """

    images: Leaf
    logits: Leaf


Message = TeacherWeights | SyntheticSet
MESSAGE_TYPES = (TeacherWeights, SyntheticSet)


class Delivery(NamedTuple):
    """One kind of message on one link.

    Attributes:
      link: `cloud_edge` or `edge_end`.
      direction: `up` (towards the cloud) or `down`.
      messages: the payloads of all senders, every leaf with a leading sender axis.
      copies: how many payloads cross in all, at least one for each sender.
    """

    link: str
    direction: str
    messages: Message
    copies: int

    @property
    def num_bytes(self) -> int:
        """Bytes on the link, all copies."""
        senders = jax.tree.leaves(self.messages)[0].shape[0]
        return self.copies * (num_bytes(self.messages) // senders)


def num_bytes(message: Message) -> int:
    """Size of the payload: the sum over its arrays, without any framing."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(message))


def fingerprints(images: np.ndarray) -> set[bytes]:
    """One digest for each uint8 image `[n, height, width, channels]`."""
    return set(_digests(images))


def _digests(images: np.ndarray) -> Iterator[bytes]:
    # A raw sample sent as floats would match no digest of a uint8 image.
    if images.dtype != np.uint8:
        raise TypeError(
            f"images are {images.dtype}; allowed: uint8, as they are stored"
        )
    for image in images.reshape(-1, *images.shape[-3:]):
        yield hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def audit(message: object, real: Set[bytes]) -> int:
    """Counts the raw samples inside a message.

    Args:
      message: what is about to cross a link.
      real: `fingerprints` of every real image of the experiment.

    Returns:
      How many images of the message equal a real one.

    Raises:
      TypeError: the payload is not one of `MESSAGE_TYPES`, or its images not uint8.
    """
    if not isinstance(message, MESSAGE_TYPES):
        allowed = ", ".join(kind.__name__ for kind in MESSAGE_TYPES)
        raise TypeError(
            f"a {type(message).__name__} may not cross a link; allowed: {allowed}"
        )
    if isinstance(message, TeacherWeights):
        return 0
    return sum(digest in real for digest in _digests(np.asarray(message.images)))


def bytes_by_link(deliveries: Iterable[Delivery]) -> dict[str, tuple[int, int]]:
    """Bytes up and down of every link that carried something."""
    totals: dict[str, tuple[int, int]] = {}
    for delivery in deliveries:
        up, down = totals.get(delivery.link, (0, 0))
        if delivery.direction == "up":
            up += delivery.num_bytes
        else:
            down += delivery.num_bytes
        totals[delivery.link] = (up, down)
    return totals
