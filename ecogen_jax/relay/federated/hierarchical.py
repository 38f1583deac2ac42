"""Hierarchical FedAvg: edges average their devices often, the cloud its edges rarely.

    w_e <- w_e + sum_k n_k / n_e (w_k - w_e)         each round, devices k of edge e
    w <- sum_e n_e / n w_e,    w_e <- w              each `period` rounds

Liu et al., "Client-edge-cloud hierarchical federated learning", ICC 2020, algorithm 1
(HierFAVG): their kappa_1 is the number of local steps, their kappa_2 the option
`period`. `n_e` is the number of images of the devices that took part since the last
average at the cloud; a device counts once for each of its rounds. Edges send the layers
that devices share, uncompressed, and the cloud takes their mean, whatever the
aggregator of the edges is. Layers that are not shared with devices are not sent down to
edges either: each edge keeps its own.
"""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import struct

from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.federated.aggregate import mean
from ecogen_jax.relay.federated.base import Arrived, Method, Metrics, Task, Visits
from ecogen_jax.relay.federated.fedavg import Server, averaged, fedavg
from ecogen_jax.relay.federated.sharing import Sharing, sharing
from ecogen_jax.relay.federated.trees import chosen, copies
from ecogen_jax.types import Key, Leaf, PyTree


@struct.dataclass
class Tiers:
    """The nets above the devices.

    Attributes:
      cloud: of the cloud.
      edges: of the edges, `[edges, ...]`.
      seen: float32 `[edges]`, images behind each edge since the last cloud average.
      number: int32 scalar, rounds done.
    """

    cloud: Server
    edges: Server
    seen: Leaf
    number: Leaf


def hierarchical(task: Task) -> Method:
    """Builds hierarchical FedAvg; its option is `period`, in rounds."""
    plain, part = fedavg(task), sharing(task)
    period = int(task.options["period"])

    def init(key: Key) -> Tiers:
        cloud = plain.init(key)
        return Tiers(
            cloud=cloud,
            edges=copies(cloud, task.num_edges),
            seen=jnp.zeros(task.num_edges),
            number=jnp.int32(0),
        )

    def of_edge(server: Tiers, edge: Leaf) -> Server:
        return jax.tree.map(lambda leaf: leaf[edge], server.edges)

    def send(server: Tiers, edge: Leaf) -> Variables:
        return part.shared(of_edge(server, edge).variables)

    def merge(server: Tiers, arrived: Arrived, key: Key) -> tuple[Tiers, Metrics]:
        below, axes = _by_edge(arrived, task.num_edges)
        edges = jax.vmap(
            lambda edge, below: averaged(task, edge, below, key), in_axes=(0, axes)
        )(server.edges, below)
        seen = server.seen + below.weights.sum(axis=1)
        number = server.number + 1
        visited = (number % period == 0) & (seen.sum() > 0)
        server = replace(server, edges=edges, seen=seen, number=number)
        cloud = chosen(visited, _met(server), server.cloud)
        return replace(
            server,
            cloud=cloud,
            edges=chosen(visited, _visited(part, edges, cloud), edges),
            seen=jnp.where(visited, jnp.zeros_like(seen), seen),
        ), {}

    def report(server: Tiers) -> tuple[Variables, PyTree]:
        variables, seen = server.cloud.variables, server.seen[0]
        return part.shared(variables), (part.facts(variables), seen)

    return plain._replace(
        init=init,
        send=send,
        merge=merge,
        cloud=lambda server: server.cloud.variables,
        edge=lambda server, index: of_edge(server, index).variables,
        pools=task.num_edges,
        visits=Visits(
            down=lambda rounds: task.num_edges * math.ceil(rounds / period),
            up=lambda rounds: task.num_edges * (rounds // period),
            report=report,
            meet=_met,
        ),
    )


def _visited(part: Sharing, edges: Server, cloud: Server) -> Server:
    """The edges with the shared layers of the cloud, and their own other layers."""
    sent = part.shared(cloud.variables)
    own = jax.vmap(lambda edge: part.joined(sent, part.kept(edge)))(edges.variables)
    return replace(edges, variables=own)


def _by_edge(arrived: Arrived, num_edges: int) -> tuple[Arrived, PyTree]:
    """The messages below each edge, and which of their leaves are `[edges, ...]`.

    With pools, an edge gets only its own entry. All entries, with weight 0 for those of
    other edges, would take a CPU 7 % longer in a round of 50 small nets below five
    edges.
    """
    if arrived.pooled:
        return jax.tree.map(lambda leaf: leaf[:, None], arrived), 0
    edge = jnp.arange(num_edges, dtype=jnp.int32)
    below = arrived.edge[None] == edge[:, None]
    weights = jnp.where(below, arrived.weights[None], 0.0)
    axes = replace(jax.tree.map(lambda leaf: None, arrived), weights=0)
    return replace(arrived, weights=weights), axes


def _met(server: Tiers) -> Server:
    """The cloud's net after the average over its edges."""
    return mean(server.edges, server.seen)
