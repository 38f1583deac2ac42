"""The parties of all three tiers, and their state for the relay."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ecogen_jax import keys
from ecogen_jax.nets.functional import Net, Variables
from ecogen_jax.relay.messages import GeneratorAndStudent
from ecogen_jax.types import Key

TIERS = ("cloud", "edge", "end")

BLOCK = 256
"""Parties whose nets are made, or answer, together in an evaluation."""


class Topology(NamedTuple):
    """How many parties there are: one cloud, edges below it, devices below each."""

    num_edges: int
    devices_per_edge: int

    @property
    def num_devices(self) -> int:
        """End devices in all."""
        return self.num_edges * self.devices_per_edge

    @property
    def edge_of_device(self) -> np.ndarray:
        """The edge that each end device belongs to, int32 `[devices]`."""
        return np.arange(self.num_devices, dtype=np.int32) // self.devices_per_edge

    def size(self, tier: str) -> int:
        """Number of parties of a tier."""
        return {"cloud": 1, "edge": self.num_edges, "end": self.num_devices}[tier]

    def devices_of_kind(self, kind: int, num_kinds: int) -> np.ndarray:
        """Indices of the end devices whose net is of a kind, ascending.

        The device at place `j` below its edge is of kind `j % num_kinds`, so that all
        edges have similar mixtures below them.
        """
        place = np.arange(self.num_devices) % self.devices_per_edge
        return np.flatnonzero(place % num_kinds == kind)


class Nets(NamedTuple):
    """The classifiers of each tier, and the one kind of generator.

    Attributes:
      cloud: the cloud's net.
      edge: the net of every edge.
      end: the kinds of net at the end tier, see `Topology.devices_of_kind`.
      generator: the generator of every hop.
    """

    cloud: Net
    edge: Net
    end: tuple[Net, ...]
    generator: Net

    def of_tier(self, tier: str) -> tuple[Net, ...]:
        """The kinds of net at a tier."""
        return {"cloud": (self.cloud,), "edge": (self.edge,), "end": self.end}[tier]


@struct.dataclass
class Parties:
    """The state of all parties between two phases. Every leaf has a leading party axis.

    Attributes:
      cloud: variables of the one cloud, `[1, ...]`.
      edge: variables of the edges, `[edges, ...]`.
      end: variables of the end devices, one entry for each kind of net: those of
        the devices of that kind in their order, `[devices of the kind, ...]`.
      cloud_relay: the cloud's generator, and the student it keeps for the edges,
        `[1, ...]`.
      edge_relay: each edge's generator, and the student it keeps for its devices of
        the first kind, `[edges, ...]`.
    """

    cloud: Variables
    edge: Variables
    end: tuple[Variables, ...]
    cloud_relay: GeneratorAndStudent
    edge_relay: GeneratorAndStudent

    def of_tier(self, tier: str) -> tuple[Variables, ...]:
        """Variables of a tier, one entry for each kind of net."""
        return {"cloud": (self.cloud,), "edge": (self.edge,), "end": self.end}[tier]

    def with_tier(self, tier: str, kinds: tuple[Variables, ...]) -> "Parties":
        """The parties once those of a tier have other variables, see `of_tier`."""
        if tier == "end":
            return replace(self, end=kinds)
        (only,) = kinds
        return replace(self, edge=only) if tier == "edge" else replace(self, cloud=only)

    def relay_of(self, tier: str) -> GeneratorAndStudent:
        """What the cloud or the edges keep for the relay."""
        return {"cloud": self.cloud_relay, "edge": self.edge_relay}[tier]

    def with_relay(self, tier: str, relay: GeneratorAndStudent) -> "Parties":
        """The parties once the cloud or the edges keep something else."""
        if tier == "edge":
            return replace(self, edge_relay=relay)
        return replace(self, cloud_relay=relay)


def initialise(
    key: Key, nets: Nets, topology: Topology, *, num_classes: int
) -> Parties:
    """Untrained parties; each party's key is derived from its own index."""

    def some(net: Net, name: str, parties: np.ndarray) -> Variables:
        party_keys = jax.vmap(lambda i: keys.stream(key, name, i))(jnp.asarray(parties))
        return jax.jit(jax.vmap(net.init))(party_keys)

    cloud, edges = np.arange(1), np.arange(topology.num_edges)
    kinds = len(nets.end)
    return Parties(
        cloud=some(nets.cloud, "cloud", cloud),
        edge=some(nets.edge, "edge", edges),
        end=tuple(
            some(net, "end", topology.devices_of_kind(kind, kinds))
            for kind, net in enumerate(nets.end)
        ),
        cloud_relay=GeneratorAndStudent(
            generator=some(nets.generator, "cloud/generator", cloud),
            student=some(nets.edge, "cloud/student", cloud),
            label_counts=jnp.zeros((1, num_classes), jnp.int32),
        ),
        edge_relay=GeneratorAndStudent(
            generator=some(nets.generator, "edge/generator", edges),
            student=some(nets.end[0], "edge/student", edges),
            label_counts=jnp.zeros((topology.num_edges, num_classes), jnp.int32),
        ),
    )
