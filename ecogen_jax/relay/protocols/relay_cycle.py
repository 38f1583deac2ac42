"""The relay cycle: knowledge down, local fine-tuning, knowledge up.

EcoGen (Kusumaraju et al., viXra 2402.0083, 2024) describes the roles: foundational
knowledge flows from the cloud to the edge and the end, personalised knowledge flows
back, and a data-free relay stands between them. How each hop is built is ours:

| stage | trains | student | message |
|---|---|---|---|
| pretrain | cloud | cloud | none: public images |
| local_only | end | end | none: the baseline, from scratch on private images |
| down/cloud_edge | cloud | a stand-in for an edge | synthetic images with logits |
| down/cloud_edge/receive | edge | edge | - |
| down/edge_end | edge | a stand-in for a device | synthetic images with logits |
| down/edge_end/receive | end | end | - |
| local | end | end | none: private images, replay of what came down |
| up/end_edge | edge | edge | the devices' weights and label counts |
| up/edge_cloud | cloud | cloud | the edges' weights and label counts |

Downwards the sender trains the generator, because its model does not fit below;
upwards the receiver does, because it can. An upward student is one of its own teachers,
weighted like the others by the label counts behind it, so that it keeps what only it
knows.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ecogen_jax import keys
from ecogen_jax.nets.functional import Net, Variables
from ecogen_jax.relay import learn
from ecogen_jax.relay.distillers.base import Distiller, HopState
from ecogen_jax.relay.ensemble import Teachers, label_count_weights
from ecogen_jax.relay.messages import Delivery, SyntheticSet, TeacherWeights
from ecogen_jax.relay.parties import Nets, Parties, Topology
from ecogen_jax.relay.stage import Stage, no_messages, repeat
from ecogen_jax.types import Key, PyTree


class LearnSettings(NamedTuple):
    """Size of a supervised or receiving phase: see `learn.learner`."""

    rounds: int
    steps: int
    learner: learn.Learner


class HopSettings(NamedTuple):
    """Size of a hop.

    Attributes:
      rounds: rounds of the hop.
      steps: generator steps in a round.
      distiller: built for the hop's nets.
    """

    rounds: int
    steps: int
    distiller: Distiller


class Evidence(NamedTuple):
    """The images behind each party's knowledge, by class.

    Attributes:
      public: the cloud's training images, `[classes]`.
      private: each device's, `[devices, classes]`.
    """

    public: np.ndarray
    private: np.ndarray


class Images(NamedTuple):
    """Training data, with a leading party axis on every leaf."""

    public: learn.Data
    private: learn.Data


def relay_cycle(
    *,
    nets: Nets,
    topology: Topology,
    images: Images,
    evidence: Evidence,
    learning: Mapping[str, LearnSettings],
    hops: Mapping[str, HopSettings],
) -> tuple[list[Stage], list[Stage]]:
    """Builds the stages.

    Args:
      nets: the classifier of each tier.
      topology: how many parties there are.
      images: the cloud's public and the devices' private training images.
      evidence: label counts of both.
      learning: settings for `pretrain`, `local_only`, `local`, `receive_edge` and
        `receive_end`.
      hops: settings for `down_cloud_edge`, `down_edge_end`, `up_end_edge` and
        `up_edge_cloud`.

    Returns:
      The stages that run once at the start, and those of every cycle.
    """
    start = [
        _pretrain(images, learning["pretrain"]),
        _local_only(nets.end, topology, images, learning["local_only"]),
    ]
    cycle = [
        _down_cloud_edge(nets, topology, evidence, hops["down_cloud_edge"]),
        _receive("edge", topology, learning["receive_edge"]),
        _down_edge_end(nets, topology, evidence, hops["down_edge_end"]),
        _receive("end", topology, learning["receive_end"]),
        _local(topology, images, learning["local"]),
        _up_end_edge(topology, evidence, hops["up_end_edge"]),
        _up_edge_cloud(topology, evidence, hops["up_edge_cloud"]),
    ]
    return start, cycle


def _pretrain(images: Images, settings: LearnSettings) -> Stage:
    def begin(parties: Parties, key: Key, cycle: int) -> tuple[PyTree, PyTree]:
        material = learn.Material(data=images.public, replay=None)
        return _start(settings.learner, key, parties.cloud), material

    return Stage(
        name="pretrain",
        phase="pretrain",
        tier="cloud",
        student="cloud",
        rounds=settings.rounds,
        num_parties=1,
        begin=begin,
        one=repeat(settings.learner.step, settings.steps),
        end=lambda parties, state: parties.replace(cloud=state.variables),
        trained=_variables,
        deliveries=no_messages,
    )


def _local_only(
    net: Net, topology: Topology, images: Images, settings: LearnSettings
) -> Stage:
    def begin(parties: Parties, key: Key, cycle: int) -> tuple[PyTree, PyTree]:
        material = learn.Material(data=images.private, replay=None)
        return _start(settings.learner, key, parties.end), material

    return Stage(
        name="local_only",
        phase="local_only",
        tier="end",
        student="end",
        rounds=settings.rounds,
        num_parties=topology.num_devices,
        begin=begin,
        one=repeat(settings.learner.step, settings.steps),
        end=lambda parties, state: parties,  # a baseline: nobody keeps it
        trained=_variables,
        deliveries=no_messages,
    )


def _local(topology: Topology, images: Images, settings: LearnSettings) -> Stage:
    def begin(parties: Parties, key: Key, cycle: int) -> tuple[PyTree, PyTree]:
        replay = _take(parties.from_edge, _edge_of_device(topology))
        material = learn.Material(data=images.private, replay=replay)
        return _start(settings.learner, key, parties.end), material

    return Stage(
        name="local",
        phase="local",
        tier="end",
        student="end",
        rounds=settings.rounds,
        num_parties=topology.num_devices,
        begin=begin,
        one=repeat(settings.learner.step, settings.steps),
        end=lambda parties, state: parties.replace(end=state.variables),
        trained=_variables,
        deliveries=no_messages,
    )


def _receive(tier: str, topology: Topology, settings: LearnSettings) -> Stage:
    """Distils each party of `tier` from the synthetic set that it was sent."""
    link = {"edge": "cloud_edge", "end": "edge_end"}[tier]
    inbox = {"edge": "from_cloud", "end": "from_edge"}[tier]
    num_parties = topology.size(tier)
    sender = (
        np.zeros(num_parties, np.int32) if tier == "edge" else _edge_of_device(topology)
    )

    def begin(parties: Parties, key: Key, cycle: int) -> tuple[PyTree, PyTree]:
        replay = _take(getattr(parties, inbox), sender)
        material = learn.Material(data=None, replay=replay)
        return _start(settings.learner, key, getattr(parties, tier)), material

    return Stage(
        name=f"down/{link}/receive",
        phase="down",
        tier=tier,
        student=tier,
        rounds=settings.rounds,
        num_parties=num_parties,
        begin=begin,
        one=repeat(settings.learner.step, settings.steps),
        end=lambda parties, state: parties.replace(**{tier: state.variables}),
        trained=_variables,
        deliveries=no_messages,
    )


def _down_cloud_edge(
    nets: Nets, topology: Topology, evidence: Evidence, settings: HopSettings
) -> Stage:
    def begin(parties: Parties, key: Key, cycle: int) -> tuple[PyTree, PyTree]:
        weights = _known(evidence, cycle)[None, None]
        teachers = Teachers((_as_members(parties.cloud),), weights)
        return _start(settings.distiller, key, _fresh(nets.edge, key, 1)), teachers

    def end(parties: Parties, state: HopState) -> Parties:
        return parties.replace(from_cloud=_bank_message(state))

    return Stage(
        name="down/cloud_edge",
        phase="down",
        tier="cloud",
        student="edge",
        rounds=settings.rounds,
        num_parties=1,
        begin=begin,
        one=repeat(settings.distiller.step, settings.steps),
        end=end,
        trained=lambda state: state.student,
        deliveries=lambda parties: [
            Delivery("cloud_edge", "down", parties.from_cloud, topology.num_edges)
        ],
    )


def _down_edge_end(
    nets: Nets, topology: Topology, evidence: Evidence, settings: HopSettings
) -> Stage:
    edges = topology.num_edges

    def begin(parties: Parties, key: Key, cycle: int) -> tuple[PyTree, PyTree]:
        weights = jnp.broadcast_to(
            _known(evidence, cycle), (edges, 1, evidence.public.shape[0])
        )
        teachers = Teachers((_as_members(parties.edge),), weights)
        return _start(settings.distiller, key, _fresh(nets.end, key, edges)), teachers

    def end(parties: Parties, state: HopState) -> Parties:
        return parties.replace(from_edge=_bank_message(state))

    return Stage(
        name="down/edge_end",
        phase="down",
        tier="edge",
        student="end",
        rounds=settings.rounds,
        num_parties=edges,
        begin=begin,
        one=repeat(settings.distiller.step, settings.steps),
        end=end,
        trained=lambda state: state.student,
        deliveries=lambda parties: [
            Delivery("edge_end", "down", parties.from_edge, topology.num_devices)
        ],
    )


def _up_end_edge(
    topology: Topology, evidence: Evidence, settings: HopSettings
) -> Stage:
    edges, below = topology.num_edges, topology.devices_per_edge
    devices = evidence.private.reshape(edges, below, -1)
    own = np.broadcast_to(evidence.public, (edges, 1, evidence.public.shape[0]))
    counts = jnp.asarray(np.concatenate([devices, own], axis=1))
    weights = jax.vmap(label_count_weights)(counts)

    def begin(parties: Parties, key: Key, cycle: int) -> tuple[PyTree, PyTree]:
        groups = jax.tree.map(
            lambda a: a.reshape(edges, below, *a.shape[1:]), parties.end
        )
        teachers = Teachers((groups, _as_members(parties.edge)), weights)
        return _start(settings.distiller, key, parties.edge), teachers

    return Stage(
        name="up/end_edge",
        phase="up",
        tier="edge",
        student="edge",
        rounds=settings.rounds,
        num_parties=edges,
        begin=begin,
        one=repeat(settings.distiller.step, settings.steps),
        end=lambda parties, state: parties.replace(edge=state.student),
        trained=lambda state: state.student,
        deliveries=lambda parties: [_up(parties.end, evidence.private, "edge_end")],
    )


def _up_edge_cloud(
    topology: Topology, evidence: Evidence, settings: HopSettings
) -> Stage:
    edges = topology.num_edges
    below = evidence.private.reshape(edges, topology.devices_per_edge, -1).sum(axis=1)
    counts = np.concatenate([below, evidence.public[None]])
    weights = label_count_weights(jnp.asarray(counts))[None]

    def begin(parties: Parties, key: Key, cycle: int) -> tuple[PyTree, PyTree]:
        group = jax.tree.map(lambda a: a[None], parties.edge)
        teachers = Teachers((group, _as_members(parties.cloud)), weights)
        return _start(settings.distiller, key, parties.cloud), teachers

    return Stage(
        name="up/edge_cloud",
        phase="up",
        tier="cloud",
        student="cloud",
        rounds=settings.rounds,
        num_parties=1,
        begin=begin,
        one=repeat(settings.distiller.step, settings.steps),
        end=lambda parties, state: parties.replace(cloud=state.student),
        trained=lambda state: state.student,
        deliveries=lambda parties: [_up(parties.edge, below, "cloud_edge")],
    )


def _variables(state: learn.State) -> Variables:
    return state.variables


def _start(
    algorithm: learn.Learner | Distiller, key: Key, variables: Variables
) -> PyTree:
    """The algorithm's initial state for every party."""
    count = jax.tree.leaves(variables)[0].shape[0]
    party_keys = jax.vmap(lambda i: keys.stream(key, "init", i))(jnp.arange(count))
    init: Callable[[Key, Variables], PyTree] = algorithm.init
    return jax.jit(jax.vmap(init))(party_keys, variables)


def _fresh(net: Net, key: Key, count: int) -> Variables:
    """Untrained stand-ins for a receiver, one a sender."""
    one = jax.vmap(lambda i: net.init(keys.stream(key, "stand_in", i)))
    return jax.jit(one)(jnp.arange(count))


def _as_members(variables: Variables) -> Variables:
    """`[parties, ...]` to `[parties, 1, ...]`: each party's only teacher of its kind."""
    return jax.tree.map(lambda a: a[:, None], variables)


def _take(messages: SyntheticSet, sender: np.ndarray) -> SyntheticSet:
    """The message of each receiver's sender."""
    return jax.tree.map(lambda a: a[sender], messages)


def _edge_of_device(topology: Topology) -> np.ndarray:
    return np.arange(topology.num_devices) // topology.devices_per_edge


def _known(evidence: Evidence, cycle: int) -> jax.Array:
    """1 for the classes that the teachers above know, `[classes]`, else 0.

    The cloud starts with the public classes; after a cycle it has heard of every
    class that some device has.
    """
    seen = evidence.public > 0
    if cycle > 1:
        seen = seen | (evidence.private.sum(axis=0) > 0)
    return jnp.asarray(seen, jnp.float32)


def _bank_message(state: HopState) -> SyntheticSet:
    return SyntheticSet(images=state.bank.images, logits=state.bank.logits)


def _up(variables: Variables, counts: np.ndarray, link: str) -> Delivery:
    messages = TeacherWeights(variables, jnp.asarray(counts, jnp.int32))
    return Delivery(link, "up", messages, counts.shape[0])
