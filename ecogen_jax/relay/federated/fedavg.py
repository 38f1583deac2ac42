"""FedAvg: devices train the received net, and the server averages their changes.

    w <- w + sum_k n_k / n (w_k - w)

over the sampled devices k with n_k images each. McMahan et al.,
"Communication-efficient learning of deep networks from decentralized data", AISTATS
2017, algorithm 1; their E epochs are a fixed number of steps here, so that all devices
do the same work.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import struct

from ecogen_jax import keys
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.federated.base import (
    Arrived,
    Member,
    Method,
    Metrics,
    Task,
    Trained,
)
from ecogen_jax.relay.federated.local import LocalTraining, local_training
from ecogen_jax.relay.federated.sharing import Kept, difference, sharing
from ecogen_jax.types import Key, Leaf


@struct.dataclass
class Server:
    """The server of a method that averages.

    Attributes:
      variables: its net.
      extra: what only this method keeps.
    """

    variables: Variables
    extra: Leaf = ()


def fedavg(task: Task) -> Method:
    """Builds FedAvg."""
    return averaging(task, local_training(task.net, task.local))


def averaging(task: Task, train: LocalTraining) -> Method:
    """FedAvg with another local training, which also gets the received net."""
    part = sharing(task)

    def init(key: Key) -> Server:
        return Server(task.net.init(keys.stream(key, "net")))

    def own(key: Key) -> Kept:
        # All devices start from the same net, so that averages are meaningful.
        return part.kept(task.net.init(keys.stream(key, "net")))

    def send(server: Server, edge: Leaf) -> Variables:
        del edge
        return part.shared(server.variables)

    def device_train(
        received: Variables, kept: Kept, member: Member, key: Key
    ) -> Trained:
        found = train(part.joined(received, kept), member, received.params, key)
        return Trained(
            update=difference(part.shared(found.variables), received),
            facts=part.facts(found.variables),
            own=part.kept(found.variables),
            metrics=found.metrics,
        )

    def merge(server: Server, arrived: Arrived, key: Key) -> tuple[Server, Metrics]:
        return averaged(task, server, arrived, key), {}

    return Method(
        init=init,
        own=own,
        send=send,
        train=device_train,
        merge=merge,
        cloud=lambda server: server.variables,
        edge=lambda server, index: server.variables,
        device=part.joined,
        # From heads only, the cloud makes no net.
        has_cloud_net=not part.head_only,
        pools=1,
    )


def averaged(task: Task, server: Server, arrived: Arrived, key: Key) -> Server:
    """The server with the aggregated change of its net, and statistics of its own."""
    part = sharing(task)
    change = task.aggregate(arrived.updates, arrived.weights, key)
    facts = task.aggregate(arrived.facts, arrived.weights, key)
    none = jnp.sum(arrived.weights) == 0
    statistics = jax.tree.map(
        lambda new, old: jnp.where(none, old, new),
        facts,
        part.facts(server.variables),
    )
    return replace(
        server, variables=part.gathered(server.variables, change, statistics)
    )
