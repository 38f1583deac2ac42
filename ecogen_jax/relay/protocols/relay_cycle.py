"""The relay cycle: knowledge down, local fine-tuning, knowledge up.

EcoGen (Kusumaraju et al., viXra 2402.0083, 2024) describes the roles: foundational
knowledge flows from the cloud to the edge and the end, personalised knowledge flows
back, and a data-free relay stands between them. How each hop is built is ours:

| stage | trains | student | message |
|---|---|---|---|
| pretrain | cloud | cloud | none: public images |
| local_only | end | end | none: the baseline, from scratch on private images |
| down/cloud_edge | cloud | edge | a generator, and the student that it taught |
| down/edge_end | edge | end | a generator, and the student that it taught |
| local | end | end | none: private images, replay of the generator's |
| up/end_edge | edge | edge | the devices' weights and label counts |
| up/edge_cloud | cloud | cloud | the edges' weights and label counts |

Downwards the sender trains, because its model does not fit below; generator and student
go on from where the sender left them. Upwards the receiver trains, because it
can; its net is one of its own teachers, weighted like the others by the label counts
behind it, so that it keeps what only it knows.
"""

from collections.abc import Mapping
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from ecogen_jax import keys
from ecogen_jax.energy import meter
from ecogen_jax.nets.classifier import to_bytes
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay import learn
from ecogen_jax.relay.distillers.base import HopState
from ecogen_jax.relay.distillers.relay import draw_labels
from ecogen_jax.relay.ensemble import Teachers, label_count_weights
from ecogen_jax.relay.messages import (
    Delivery,
    GeneratorAndStudent,
    TeacherWeights,
)
from ecogen_jax.relay.parties import Nets, Parties, Topology
from ecogen_jax.relay.settings import (
    Evidence,
    HopSettings,
    Images,
    LearnSettings,
    ReplaySettings,
)
from ecogen_jax.relay.stage import Stage, no_messages, one_party, repeat
from ecogen_jax.types import Key, PyTree


def relay_cycle(
    *,
    nets: Nets,
    topology: Topology,
    images: Images,
    evidence: Evidence,
    learning: Mapping[str, LearnSettings],
    hops: Mapping[str, HopSettings],
    replay: ReplaySettings,
) -> tuple[list[Stage], list[Stage]]:
    """Builds the stages.

    Args:
      nets: the classifier of each tier.
      topology: how many parties there are.
      images: the cloud's public and the devices' private training images.
      evidence: label counts of both.
      learning: settings for `pretrain`, `local_only` and `local`.
      hops: settings for `down_cloud_edge`, `down_edge_end`, `up_end_edge` and
        `up_edge_cloud`.
      replay: how devices replay what they were sent.

    Returns:
      The stages that run once at the start, and those of every cycle.
    """
    start = [
        _pretrain(images, evidence.public, learning["pretrain"]),
        _local_only(topology, images, learning["local_only"]),
    ]
    cycle = [
        _down_cloud_edge(topology, hops["down_cloud_edge"]),
        _down_edge_end(topology, hops["down_edge_end"]),
        _local(nets, topology, images, learning["local"], replay),
        _up_end_edge(topology, evidence.private, hops["up_end_edge"]),
        _up_edge_cloud(topology, evidence, hops["up_edge_cloud"]),
    ]
    return start, cycle


def _pretrain(images: Images, public: np.ndarray, settings: LearnSettings) -> Stage:
    def begin(parties: Parties, key: Key) -> tuple[PyTree, PyTree]:
        material = learn.Material(data=images.public, replay=None)
        return _learn_start(settings, parties.cloud), material

    def end(parties: Parties, state: learn.State) -> Parties:
        relay = replace(parties.cloud_relay, label_counts=_as_counts(public[None]))
        return replace(parties, cloud=state.variables, cloud_relay=relay)

    return Stage(
        name="pretrain",
        phase="pretrain",
        tier="cloud",
        student="cloud",
        rounds=settings.rounds,
        num_parties=1,
        begin=begin,
        one=repeat(settings.learner.step, settings.steps),
        end=end,
        trained=_variables,
        deliveries=no_messages,
    )


def _local_only(topology: Topology, images: Images, settings: LearnSettings) -> Stage:
    def begin(parties: Parties, key: Key) -> tuple[PyTree, PyTree]:
        material = learn.Material(data=images.private, replay=None)
        return _learn_start(settings, parties.end), material

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


def _local(
    nets: Nets,
    topology: Topology,
    images: Images,
    settings: LearnSettings,
    replay: ReplaySettings,
) -> Stage:
    edge_of_device = np.arange(topology.num_devices) // topology.devices_per_edge

    def one_edge(sent: GeneratorAndStudent, key: Key) -> learn.Replay:
        return _replay(nets, sent, key, replay)

    def begin(parties: Parties, key: Key) -> tuple[PyTree, PyTree]:
        # Devices below one edge would draw the same images from the same key, so they
        # are made once here; the ledger counts them for every device.
        edge_keys = jax.random.split(key, topology.num_edges)
        made = jax.jit(jax.vmap(one_edge))(parties.edge_relay, edge_keys)
        made = _take(made, edge_of_device)
        material = learn.Material(data=images.private, replay=made)
        return _learn_start(settings, parties.end), material

    def setup_flops(parties: Parties) -> float:
        sent = one_party(parties.edge_relay)
        cost = meter.cost(one_edge, sent, jax.random.key(0))
        return cost.flops * topology.num_devices

    return Stage(
        name="local",
        phase="local",
        tier="end",
        student="end",
        rounds=settings.rounds,
        num_parties=topology.num_devices,
        begin=begin,
        one=repeat(settings.learner.step, settings.steps),
        end=lambda parties, state: replace(parties, end=state.variables),
        trained=_variables,
        deliveries=no_messages,
        setup_flops=setup_flops,
    )


def _replay(
    nets: Nets,
    sent: GeneratorAndStudent,
    key: Key,
    settings: ReplaySettings,
) -> learn.Replay:
    """Images of the generator that was sent, with the logits of the student sent."""
    known = (sent.label_counts > 0).astype(jnp.float32)[None]
    labels = draw_labels(keys.stream(key, "labels"), known, settings.size)
    latent = jax.random.normal(
        keys.stream(key, "latent"), (settings.size, settings.latent_size)
    )
    made = nets.generator.apply(sent.generator, latent, labels, train=True).value
    logits = nets.end.apply(sent.student, made, train=False).value
    return learn.Replay(to_bytes(made), logits)


def _down_cloud_edge(topology: Topology, settings: HopSettings) -> Stage:
    def begin(parties: Parties, key: Key) -> tuple[PyTree, PyTree]:
        known = _known(parties.cloud_relay)
        teachers = Teachers((_as_members(parties.cloud),), known[:, None])
        return _hop_start(settings, parties.cloud_relay), teachers

    def end(parties: Parties, state: HopState) -> Parties:
        sender = np.zeros(topology.num_edges, np.int32)
        sent = replace(
            parties.cloud_relay, generator=state.generator, student=state.student
        )
        heard = _take(sent.label_counts, sender)
        return replace(
            parties,
            cloud_relay=sent,
            edge=_take(sent.student, sender),
            edge_relay=replace(parties.edge_relay, label_counts=heard),
        )

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
        trained=_student,
        deliveries=lambda parties: [
            Delivery("cloud_edge", "down", parties.cloud_relay, topology.num_edges)
        ],
    )


def _down_edge_end(topology: Topology, settings: HopSettings) -> Stage:
    edges = topology.num_edges
    edge_of_device = np.arange(topology.num_devices) // topology.devices_per_edge

    def begin(parties: Parties, key: Key) -> tuple[PyTree, PyTree]:
        known = _known(parties.edge_relay)
        teachers = Teachers((_as_members(parties.edge),), known[:, None])
        return _hop_start(settings, parties.edge_relay), teachers

    def end(parties: Parties, state: HopState) -> Parties:
        sent = replace(
            parties.edge_relay, generator=state.generator, student=state.student
        )
        return replace(
            parties, edge_relay=sent, end=_take(sent.student, edge_of_device)
        )

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
        trained=_student,
        deliveries=lambda parties: [
            Delivery("edge_end", "down", parties.edge_relay, topology.num_devices)
        ],
    )


def _up_end_edge(
    topology: Topology, private: np.ndarray, settings: HopSettings
) -> Stage:
    edges, below = topology.num_edges, topology.devices_per_edge
    devices = _as_counts(private.reshape(edges, below, -1))

    def begin(parties: Parties, key: Key) -> tuple[PyTree, PyTree]:
        groups = jax.tree.map(
            lambda a: a.reshape(edges, below, *a.shape[1:]), parties.end
        )
        came_down = parties.edge_relay.label_counts[:, None]
        counts = jnp.concatenate([devices, came_down], axis=1)
        weights = jax.vmap(label_count_weights)(counts)
        teachers = Teachers((groups, _as_members(parties.edge)), weights)
        relay = replace(parties.edge_relay, student=parties.edge)
        return _hop_start(settings, relay), teachers

    def end(parties: Parties, state: HopState) -> Parties:
        relay = replace(parties.edge_relay, generator=state.generator)
        return replace(parties, edge=state.student, edge_relay=relay)

    return Stage(
        name="up/end_edge",
        phase="up",
        tier="edge",
        student="edge",
        rounds=settings.rounds,
        num_parties=edges,
        begin=begin,
        one=repeat(settings.distiller.step, settings.steps),
        end=end,
        trained=_student,
        deliveries=lambda parties: [_up(parties.end, private, "edge_end")],
    )


def _up_edge_cloud(
    topology: Topology, evidence: Evidence, settings: HopSettings
) -> Stage:
    devices = evidence.private.reshape(
        topology.num_edges, topology.devices_per_edge, -1
    )
    below = _as_counts(devices.sum(axis=1))

    def begin(parties: Parties, key: Key) -> tuple[PyTree, PyTree]:
        group = jax.tree.map(lambda a: a[None], parties.edge)
        counts = jnp.concatenate([below, parties.cloud_relay.label_counts])
        weights = label_count_weights(counts)[None]
        teachers = Teachers((group, _as_members(parties.cloud)), weights)
        relay = replace(parties.cloud_relay, student=parties.cloud)
        return _hop_start(settings, relay), teachers

    def end(parties: Parties, state: HopState) -> Parties:
        relay = replace(
            parties.cloud_relay,
            generator=state.generator,
            label_counts=_as_counts(evidence.public + below.sum(axis=0))[None],
        )
        return replace(parties, cloud=state.student, cloud_relay=relay)

    return Stage(
        name="up/edge_cloud",
        phase="up",
        tier="cloud",
        student="cloud",
        rounds=settings.rounds,
        num_parties=1,
        begin=begin,
        one=repeat(settings.distiller.step, settings.steps),
        end=end,
        trained=_student,
        deliveries=lambda parties: [_up(parties.edge, below, "cloud_edge")],
    )


def _variables(state: learn.State) -> Variables:
    return state.variables


def _student(state: HopState) -> Variables:
    return state.student


def _learn_start(settings: LearnSettings, variables: Variables) -> learn.State:
    """The learner's first state, for every party."""
    return jax.jit(jax.vmap(settings.learner.init))(variables)


def _hop_start(settings: HopSettings, relay: GeneratorAndStudent) -> HopState:
    """The hop's first state, for every party that trains a generator."""
    init = jax.vmap(settings.distiller.init)
    return jax.jit(init)(relay.student, relay.generator)


def _as_members(variables: Variables) -> Variables:
    """`[parties, ...]` to `[parties, 1, ...]`: the only teacher of its kind."""
    return jax.tree.map(lambda a: a[:, None], variables)


def _take(sent: PyTree, sender: np.ndarray) -> PyTree:
    """What each receiver's sender sent, `[senders, ...]` to `[receivers, ...]`."""
    return jax.tree.map(lambda a: a[sender], sent)


def _known(relay: GeneratorAndStudent) -> jax.Array:
    """1 for the classes that a sender has heard of, `[senders, classes]`, else 0."""
    return (jnp.asarray(relay.label_counts) > 0).astype(jnp.float32)


def _as_counts(counts: np.ndarray) -> np.ndarray:
    return counts.astype(np.int32)


def _up(variables: Variables, counts: np.ndarray, link: str) -> Delivery:
    messages = TeacherWeights(variables, _as_counts(counts))
    return Delivery(link, "up", messages, counts.shape[0])
