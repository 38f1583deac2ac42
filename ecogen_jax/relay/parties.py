"""The parties of all three tiers, and what they have last been sent."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from ecogen_jax import keys
from ecogen_jax.nets.functional import Net, Variables
from ecogen_jax.relay.messages import SyntheticSet
from ecogen_jax.types import Key

TIERS = ("cloud", "edge", "end")


class Topology(NamedTuple):
    """How many parties there are: one cloud, edges below it, devices below each."""

    num_edges: int
    devices_per_edge: int

    @property
    def num_devices(self) -> int:
        """End devices in all; device `i` belongs to edge `i // devices_per_edge`."""
        return self.num_edges * self.devices_per_edge

    def size(self, tier: str) -> int:
        """Number of parties of a tier."""
        return {"cloud": 1, "edge": self.num_edges, "end": self.num_devices}[tier]


class Nets(NamedTuple):
    """The classifier of each tier."""

    cloud: Net
    edge: Net
    end: Net


@struct.dataclass
class Parties:
    """What everybody knows between two phases. Every leaf has a leading party axis.

    Attributes:
      cloud: variables of the one cloud, `[1, ...]`.
      edge: variables of the edges, `[edges, ...]`.
      end: variables of the end devices, `[devices, ...]`.
      from_cloud: what the cloud last sent down, `[1, size, ...]`.
      from_edge: what each edge last sent down, `[edges, size, ...]`.
    """

    cloud: Variables
    edge: Variables
    end: Variables
    from_cloud: SyntheticSet
    from_edge: SyntheticSet


def initialise(
    key: Key,
    nets: Nets,
    topology: Topology,
    *,
    shape: tuple[int, int, int],
    num_classes: int,
    sent_sizes: tuple[int, int],
) -> Parties:
    """Untrained parties with empty inboxes.

    Args:
      key: random key.
      nets: the classifier of each tier.
      topology: how many parties there are.
      shape: height, width and channels of one image.
      num_classes: number of classes.
      sent_sizes: images in a message of the cloud and in one of an edge.
    """

    def tier(name: str) -> Variables:
        count = topology.size(name)
        party_keys = jax.vmap(lambda i: keys.stream(key, name, i))(jnp.arange(count))
        return jax.jit(jax.vmap(getattr(nets, name).init))(party_keys)

    def inbox(senders: int, size: int) -> SyntheticSet:
        return SyntheticSet(
            images=jnp.zeros((senders, size, *shape), jnp.uint8),
            logits=jnp.zeros((senders, size, num_classes), jnp.float32),
        )

    return Parties(
        cloud=tier("cloud"),
        edge=tier("edge"),
        end=tier("end"),
        from_cloud=inbox(1, sent_sizes[0]),
        from_edge=inbox(topology.num_edges, sent_sizes[1]),
    )
