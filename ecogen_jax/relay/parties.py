"""The parties of all three tiers, and what they keep for the relay."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from ecogen_jax import keys
from ecogen_jax.nets.functional import Net, Variables
from ecogen_jax.relay.messages import GeneratorAndStudent
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
    """The classifier of each tier, and the one kind of generator."""

    cloud: Net
    edge: Net
    end: Net
    generator: Net


@struct.dataclass
class Parties:
    """What everybody knows between two phases. Every leaf has a leading party axis.

    Attributes:
      cloud: variables of the one cloud, `[1, ...]`.
      edge: variables of the edges, `[edges, ...]`.
      end: variables of the end devices, `[devices, ...]`.
      cloud_relay: the cloud's generator, and the student it keeps for the edges,
        `[1, ...]`.
      edge_relay: each edge's generator, and the student it keeps for its devices,
        `[edges, ...]`.
    """

    cloud: Variables
    edge: Variables
    end: Variables
    cloud_relay: GeneratorAndStudent
    edge_relay: GeneratorAndStudent


def initialise(
    key: Key, nets: Nets, topology: Topology, *, num_classes: int
) -> Parties:
    """Untrained parties."""

    def some(net: Net, name: str, count: int) -> Variables:
        party_keys = jax.vmap(lambda i: keys.stream(key, name, i))(jnp.arange(count))
        return jax.jit(jax.vmap(net.init))(party_keys)

    edges = topology.num_edges
    return Parties(
        cloud=some(nets.cloud, "cloud", 1),
        edge=some(nets.edge, "edge", edges),
        end=some(nets.end, "end", topology.num_devices),
        cloud_relay=GeneratorAndStudent(
            generator=some(nets.generator, "cloud/generator", 1),
            student=some(nets.edge, "cloud/student", 1),
            label_counts=jnp.zeros((1, num_classes), jnp.int32),
        ),
        edge_relay=GeneratorAndStudent(
            generator=some(nets.generator, "edge/generator", edges),
            student=some(nets.end, "edge/student", edges),
            label_counts=jnp.zeros((edges, num_classes), jnp.int32),
        ),
    )
