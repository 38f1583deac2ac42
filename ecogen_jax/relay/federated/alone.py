"""Local training alone: nothing is sent, every device keeps its net.

The lower reference of every comparison. The upper one, training on all images in one
place, is the same method with a single device that holds all images.
"""

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
from ecogen_jax.relay.federated.local import local_training
from ecogen_jax.types import Key, Leaf


def alone(task: Task) -> Method:
    """Builds local training; the cloud keeps its untrained net."""
    train = local_training(task.net, task.local)

    def init(key: Key) -> Variables:
        return task.net.init(keys.stream(key, "net"))

    def send(server: Variables, edge: Leaf) -> tuple[()]:
        del server, edge
        return ()

    def device_train(
        received: tuple[()], own: Variables, member: Member, key: Key
    ) -> Trained:
        found = train(own, member, received, key)
        return Trained((), (), found.variables, found.metrics)

    def merge(
        server: Variables, arrived: Arrived, key: Key
    ) -> tuple[Variables, Metrics]:
        del arrived, key
        return server, {}

    return Method(
        init=init,
        own=init,
        send=send,
        train=device_train,
        merge=merge,
        cloud=lambda server: server,
        edge=lambda server, index: server,
        device=lambda received, own: own,
        has_cloud_net=False,
    )
