"""The only payloads that may cross a link, each with its size in bytes.

In a relay cycle and in hops these are nets, generators and label counts, in types
without a field for a sample. Federations send what their method needs: nets or their
changes, control variates, generators, mean logits, image counts, BatchNorm statistics.
No method sends a sample of anyone's data; `audit` still searches the arrays for raw
samples.
"""

import functools
import hashlib
from collections.abc import Iterable, Set
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ecogen_jax.nets.functional import Variables
from ecogen_jax.types import Leaf, PyTree


@struct.dataclass
class TeacherWeights:
    """A sender's net, for a receiver that trains the generator itself.

    Attributes:
      variables: parameters and BatchNorm statistics.
      label_counts: number of training images of each class behind it, `[classes]`; the
        receiver weights its teachers by them.
    """

    variables: Variables
    label_counts: Leaf


@struct.dataclass
class GeneratorAndStudent:
    """A generator and a student that a sender trained for a receiver below it.

    Attributes:
      generator: makes the images on which the student was distilled. Devices replay
        them, and a hop may continue from it, as an edge of a relay cycle does.
      student: the receiver's net, distilled from the sender's.
      label_counts: number of training images of each class behind them, `[classes]`;
        the receiver draws no class that no party has seen.
    """

    generator: Variables
    student: Variables
    label_counts: Leaf


@struct.dataclass
class ServerBroadcast:
    """What the server of a federation sends to a device at the start of a round.

    Attributes:
      payload: of the method: nets, control variates, generators, mean logits.
    """

    payload: PyTree


@struct.dataclass
class ClientUpdate:
    """What a device of a federation sends at the end of a round.

    Attributes:
      number: int32, the round that it belongs to.
      size: int32, how many values the payload has.
      payload: the change of the net, compressed.
      facts: everything else that the method sends: label counts, mean logits,
        statistics.
    """

    number: Leaf
    size: Leaf
    payload: PyTree
    facts: PyTree


Message = TeacherWeights | GeneratorAndStudent | ServerBroadcast | ClientUpdate
MESSAGE_TYPES = (TeacherWeights, GeneratorAndStudent, ServerBroadcast, ClientUpdate)


class Delivery(NamedTuple):
    """One kind of message on one link.

    Attributes:
      link: `cloud_edge` or `edge_end`.
      direction: `up` (towards the cloud) or `down`.
      messages: the payloads of all senders, every leaf with a leading sender axis.
      copies: number of payloads that cross in total, at least one per sender.
      times: number of sequential crossings; the copies of one crossing are sent in
        parallel.
    """

    link: str
    direction: str
    messages: Message
    copies: int
    times: int = 1

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
    return {_digest(image) for image in images}


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def audit(message: object, real: Set[bytes], image_size: int) -> int:
    """Counts the raw samples inside a message, stored as bytes or as scaled floats.

    Args:
      message: what is about to cross a link.
      real: `fingerprints` of every real image of the experiment.
      image_size: values in one image.

    Returns:
      How many rows of the message's arrays equal a real image.

    Raises:
      TypeError: the payload is not one of `MESSAGE_TYPES`.
    """
    if not isinstance(message, MESSAGE_TYPES):
        allowed = ", ".join(kind.__name__ for kind in MESSAGE_TYPES)
        raise TypeError(
            f"a {type(message).__name__} may not cross a link; allowed: {allowed}"
        )
    found = 0
    for leaf in jax.tree.leaves(message):
        if leaf.size % image_size == 0:
            rows = np.asarray(leaf).reshape(-1, image_size)
            found += sum(_digest(row) in real for row in _as_images(rows))
    return found


def _as_images(rows: np.ndarray) -> np.ndarray:
    """The rows that may be images, as bytes or scaled to [0, 1], as bytes.

    A row with a value outside the range of images is not one, such as weights of a net.
    """
    if rows.dtype.itemsize == 1:
        return rows.view(np.uint8)
    one = 1 if rows.dtype.kind in "iu" else 255
    half = 0.5 / one
    likely = rows[rows.min(axis=1) > -half]
    if not likely.size:  # the common case
        return likely
    likely = likely[likely.max(axis=1) < 255 / one + half]
    return np.round(likely.astype(np.float32) * one).astype(np.uint8)


def all_finite(message: PyTree) -> jax.Array:
    """Whether a payload has neither NaN nor infinity in it, bool of shape `[]`.

    A finite sum of squares has only finite terms, and is fast on a CPU. If it is not
    finite it may have overflowed, and each number is checked.
    """
    leaves = [
        leaf.ravel()
        for leaf in jax.tree.leaves(message)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    squares = [jnp.vdot(leaf, leaf).astype(jnp.float32) for leaf in leaves]
    return jax.lax.cond(
        jnp.isfinite(sum(squares, jnp.float32(0.0))),
        lambda: jnp.bool_(True),
        lambda: functools.reduce(
            jnp.logical_and,
            [jnp.isfinite(leaf).all() for leaf in leaves],
            jnp.bool_(True),
        ),
    )


def crossings_by_link(deliveries: Iterable[Delivery]) -> dict[str, int]:
    """Number of sequential crossings of each link, up and down together.

    Deliveries in one direction cross in parallel; those without a byte do not count.
    """
    ways: dict[tuple[str, str], int] = {}
    for sent in deliveries:
        way, times = (sent.link, sent.direction), sent.times if sent.num_bytes else 0
        ways[way] = max(ways.get(way, 0), times)
    links = dict.fromkeys(link for link, _ in ways)
    return {
        link: sum(times for (name, _), times in ways.items() if name == link)
        for link in links
    }


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
