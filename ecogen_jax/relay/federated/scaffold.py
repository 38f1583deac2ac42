"""SCAFFOLD: control variates correct the client drift of local steps.

    y <- y - lr (g(y) - c_k + c)              K local steps from y = w
    c_k' = c_k - c + (w - y) / (K lr)         option II of the paper: the mean of g(y)
    w <- w + mean_k (y_k - w),    c <- c + |S| / N mean_k (c_k' - c_k)

Karimireddy et al., "SCAFFOLD: stochastic controlled averaging for federated learning",
ICML 2020, algorithm 1, with a server step of 1. Means are over sampled devices with
equal weights in the paper; here, the change of the net is weighted by images, as in the
other methods. Another `federated.aggregator` replaces both means. In both directions it
sends twice the bytes of FedAvg, less those of BatchNorm statistics. Only shared layers
have a control variate. With `federated.compression`, a device moves its own variate by
the exact change, but the server hears the compressed one: then `c` is the mean of the
`c_k` up to what the compression left out.
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
from ecogen_jax.relay.federated.fedavg import Server, averaged, fedavg
from ecogen_jax.relay.federated.local import local_training
from ecogen_jax.relay.federated.sharing import Kept, difference, sharing
from ecogen_jax.types import Key, Leaf, PyTree


@struct.dataclass
class Sent:
    """What goes both ways: a net, or its change, and a control variate, or its."""

    net: Variables
    control: Leaf


@struct.dataclass
class Own:
    """What a device keeps: its part of the net, and its control variate."""

    kept: Kept
    control: Leaf


def scaffold(task: Task) -> Method:
    """Builds SCAFFOLD. Momentum in local training would break its equations."""
    plain, part = fedavg(task), sharing(task)

    train = local_training(task.net, task.local, correct=_steered)

    def zeros(key: Key) -> PyTree:
        shared = part.shared(task.net.init(keys.stream(key, "net"))).params
        return jax.tree.map(jnp.zeros_like, shared)

    def init(key: Key) -> Server:
        return replace(plain.init(key), extra=zeros(key))

    def own(key: Key) -> Own:
        return Own(plain.own(key), zeros(key))

    def send(server: Server, edge: Leaf) -> Sent:
        return Sent(plain.send(server, edge), server.extra)

    def device_train(received: Sent, own: Own, member: Member, key: Key) -> Trained:
        drift = difference(received.control, own.control)
        found = train(part.joined(received.net, own.kept), member, drift, key)
        change = difference(part.shared(found.variables), received.net)
        number = member.number.astype(jnp.float32)
        rate = task.local.learning_rate * task.local.decay**number
        moved = _moved(received.control, change.params, found.steps, rate)
        return Trained(
            update=Sent(change, moved),
            facts=part.facts(found.variables),
            own=Own(
                part.kept(found.variables),
                jax.tree.map(jnp.add, own.control, moved),
            ),
            metrics=found.metrics,
        )

    def merge(server: Server, arrived: Arrived, key: Key) -> tuple[Server, Metrics]:
        changes = replace(arrived, updates=arrived.updates.net)
        after = averaged(task, server, changes, key)
        taken = (arrived.weights > 0).astype(jnp.float32)
        share = jnp.sum(taken) / task.num_devices
        moved = task.aggregate(arrived.updates.control, taken, key)
        control = jax.tree.map(lambda c, by: c + share * by, server.extra, moved)
        return replace(after, extra=control), {}

    return plain._replace(
        init=init,
        own=own,
        send=send,
        train=device_train,
        merge=merge,
        device=lambda received, own: part.joined(received.net, own.kept),
        pools=0,  # two means, with different weights
    )


def _steered(grads: PyTree, params: PyTree, drift: PyTree) -> PyTree:
    """Gradients plus `c - c_k`, where there is one."""
    del params
    steered = {
        name: jax.tree.map(jnp.add, grads[name], by) for name, by in drift.items()
    }
    return {**grads, **steered}


def _moved(
    control: PyTree, change: PyTree, steps: jax.Array, rate: jax.Array
) -> PyTree:
    """`c_k' - c_k`."""
    return jax.tree.map(lambda c, by: -c - by / (steps * rate), control, change)
