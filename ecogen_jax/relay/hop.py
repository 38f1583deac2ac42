"""The stage of a hop, and the code that both directions of hops share."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from ecogen_jax import keys
from ecogen_jax.nets.functional import Net, Variables
from ecogen_jax.relay.distillers.base import HopState
from ecogen_jax.relay.ensemble import Teachers
from ecogen_jax.relay.messages import Delivery
from ecogen_jax.relay.parties import Parties
from ecogen_jax.relay.settings import HopSettings, Leg
from ecogen_jax.relay.stage import Stage, repeat
from ecogen_jax.types import Key, PyTree


class Start(NamedTuple):
    """The start of a hop; every leaf has an axis over the parties that train.

    Attributes:
      student: the net to be trained.
      generator: makes the images.
      teachers: see `Teachers`.
    """

    student: Variables
    generator: Variables
    teachers: Teachers


def hop_stage(
    leg: Leg,
    settings: HopSettings,
    *,
    num_parties: int,
    start: Callable[[Parties, Key], Start],
    end: Callable[[Parties, HopState], Parties],
    deliveries: Callable[[Parties], list[Delivery]],
    ensemble: str = "",
) -> Stage:
    """Builds the stage of a hop.

    Args:
      leg: from which tier to which.
      settings: its size and its distiller.
      num_parties: how many parties train: senders downwards, receivers upwards.
      start: `start(parties, key) -> Start`.
      end: see `Stage`, as for `deliveries` and `ensemble`.
      deliveries: see `Stage`.
      ensemble: see `Stage`.
    """

    def begin(parties: Parties, key: Key) -> tuple[PyTree, PyTree]:
        student, generator, teachers = start(parties, key)
        party_keys = jax.random.split(keys.stream(key, "distiller"), num_parties)
        init = jax.jit(jax.vmap(settings.distiller.init))
        return init(student, generator, teachers, party_keys), teachers

    return Stage(
        name=leg.stage,
        phase=leg.direction,
        # Downwards the sender's model does not fit below; upwards the receiver can
        # train.
        tier=leg.trainer,
        student=leg.receiver,
        rounds=settings.rounds,
        num_parties=num_parties,
        begin=begin,
        one=repeat(settings.distiller.step, settings.steps),
        end=end,
        trained=lambda state: state.student,
        deliveries=deliveries,
        ensemble=ensemble,
        teachers=settings.together if leg.direction == "up" else None,
    )


def fresh(net: Net, key: Key, count: int) -> Variables:
    """Untrained variables of that many parties, `[count, ...]`."""
    return jax.jit(jax.vmap(net.init))(jax.random.split(key, count))


def as_members(variables: Variables) -> Variables:
    """`[parties, ...]` to `[parties, 1, ...]`: one teacher per group."""
    return jax.tree.map(lambda a: a[:, None], variables)


def as_groups(variables: Variables, receivers: int) -> Variables:
    """`[senders, ...]` to `[receivers, senders below each, ...]`."""
    return jax.tree.map(lambda a: a.reshape(receivers, -1, *a.shape[1:]), variables)


def take(sent: PyTree, sender: np.ndarray) -> PyTree:
    """The message of each receiver's sender, `[senders, ...]` to `[receivers, ...]`."""
    return jax.tree.map(lambda a: a[sender], sent)


def as_counts(counts: np.ndarray) -> np.ndarray:
    """Label counts as messages hold them."""
    return counts.astype(np.int32)
