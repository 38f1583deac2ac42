"""The received nets of devices, as teachers of the server's net.

A device's net is the net that it received plus its update. If BatchNorm statistics stay
on the device, the statistics that it reported are used. A device whose message was
refused keeps its place, with the server's own net and weight 0, so that the compiled
program does not depend on which messages were accepted.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.ensemble import Teachers
from ecogen_jax.relay.federated.base import Arrived, Member, Method, Task, Trained
from ecogen_jax.relay.federated.sharing import Kept, possible, sharing
from ecogen_jax.relay.federated.trees import chosen, copies
from ecogen_jax.types import Key, Leaf, PyTree

Shares = Float[Array, "active classes"]


@struct.dataclass
class Facts:
    """What is sent up besides the change of the net.

    Attributes:
      stats: running statistics for the cloud's net, or {}.
      counts: float32 `[classes]`, images of the device by class.
    """

    stats: Leaf
    counts: Leaf


def telling(method: Method) -> Method:
    """The method, with devices that also send their label counts, as `Facts`.

    The merge has to take the statistics out of them, see `nets_alone`.
    """

    def train(received: PyTree, own: PyTree, member: Member, key: Key) -> Trained:
        trained = method.train(received, own, member, key)
        return replace(trained, facts=Facts(trained.facts, member.counts))

    return method._replace(train=train)


def nets_alone(arrived: Arrived) -> Arrived:
    """The messages without the label counts."""
    return replace(arrived, facts=arrived.facts.stats)


def told(arrived: Arrived) -> Shares:
    """Label counts of the devices, zero for refused ones."""
    taken = arrived.weights > 0
    return jnp.where(taken[:, None], arrived.facts.counts, 0.0)


def shares(arrived: Arrived, said: Shares) -> Shares:
    """Weights of the devices for each class, in proportion to `said`.

    Args:
      arrived: the messages; refused devices get weight 0.
      said: a value per device and class, at least 0.

    Returns:
      Columns that sum to 1, or to 0 where all of `said` is 0.
    """
    return normalised(jnp.where((arrived.weights > 0)[:, None], said, 0.0))


def normalised(said: Shares) -> Shares:
    """Columns scaled to sum to 1; columns of zeros stay."""
    total = jnp.sum(said, axis=0, keepdims=True)
    return said / jnp.where(total > 0, total, 1.0)


def teachers(
    task: Task, sent: Variables, arrived: Arrived, weights: Shares
) -> Teachers:
    """The devices of a round.

    Args:
      task: whose nets are shared whole, see `Task.share`.
      sent: the server's net before the round.
      arrived: with the statistics alone as facts.
      weights: of the devices for each class.
    """
    part = sharing(task)
    before = copies((part.shared(sent), part.facts(sent)), task.active)
    moved = jax.tree.map(jnp.add, before[0], arrived.updates)
    after = replace(moved, stats=possible(moved.stats)), arrived.facts
    shared, stats = chosen(arrived.weights > 0, after, before)
    return Teachers((part.joined(shared, Kept({}, stats)),), weights)
