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

Downwards the sender trains, because its model does not fit below. Its student goes on
from where it was, and so does its generator: the cloud's from its own last hop, an
edge's from the one that the cloud has just sent, which was trained against the better
teacher. Upwards the receiver trains, because it can; its net is one of its own
teachers, weighted like the others by the label counts behind it, so that it keeps what
only it knows.
"""

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
from ecogen_jax.relay.distillers.labels import draw_labels
from ecogen_jax.relay.hop import (
    Start,
    as_counts,
    as_groups,
    as_members,
    hop_stage,
    take,
)
from ecogen_jax.relay.messages import (
    Delivery,
    GeneratorAndStudent,
    TeacherWeights,
)
from ecogen_jax.relay.parties import Nets, Parties, Topology
from ecogen_jax.relay.settings import (
    Evidence,
    HopSettings,
    Leg,
    ReplaySettings,
    Settings,
)
from ecogen_jax.relay.stage import Stage, one_party
from ecogen_jax.relay.training import devices_alone, learn_stage, pretrain
from ecogen_jax.types import Key

LEGS = (
    Leg("cloud", "edge", returns=False),
    Leg("edge", "end", returns=False),
    Leg("end", "edge", returns=True),
    Leg("edge", "cloud", returns=True),
)
"""The hops of a cycle."""


def relay_cycle(settings: Settings) -> tuple[list[Stage], list[Stage]]:
    """Builds the stages.

    Args:
      settings: with `learning` for `pretrain`, `local_only` and `local`, `hops` for
        all of `LEGS`, and one kind of net at the end tier.

    Returns:
      The stages that run once at the start, and those of every cycle.
    """
    topology, evidence = settings.topology, settings.evidence
    cloud_edge, edge_end, end_edge, edge_cloud = LEGS
    start = [pretrain(settings), devices_alone(settings, "local_only", 0, kept=False)]
    cycle = [
        _down_cloud_edge(cloud_edge, topology, settings.hops[cloud_edge.stage]),
        _down_edge_end(edge_end, topology, settings.hops[edge_end.stage]),
        _local(settings),
        _up_end_edge(
            end_edge, topology, evidence.private, settings.hops[end_edge.stage]
        ),
        _up_edge_cloud(edge_cloud, topology, evidence, settings.hops[edge_cloud.stage]),
    ]
    return start, cycle


def _local(settings: Settings) -> Stage:
    nets, topology, replay = settings.nets, settings.topology, settings.replay
    devices = np.arange(topology.num_devices)

    def one_edge(sent: GeneratorAndStudent, key: Key) -> learn.Replay:
        return _replay(nets, sent, key, replay)

    def start(parties: Parties, key: Key) -> tuple[Variables, learn.Material]:
        # Devices below one edge would draw the same images from the same key, so they
        # are made once here; the ledger counts them for every device.
        edge_keys = jax.random.split(key, topology.num_edges)
        made = jax.jit(jax.vmap(one_edge))(parties.edge_relay, edge_keys)
        made = take(made, topology.edge_of_device)
        data = learn.Data(*settings.images.private.padded(devices))
        return parties.end[0], learn.Material(data, made)

    def setup_flops(parties: Parties) -> float:
        sent = one_party(parties.edge_relay)
        cost = meter.cost(one_edge, sent, jax.random.key(0))
        return cost.flops * topology.num_devices

    return learn_stage(
        name="local",
        phase="local",
        tier="end",
        student="end",
        num_parties=topology.num_devices,
        settings=settings.learning["local"],
        start=start,
        end=lambda parties, trained: replace(parties, end=(trained,)),
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
    logits = nets.end[0].apply(sent.student, made, train=False).value
    return learn.Replay(to_bytes(made), logits)


def _down_cloud_edge(leg: Leg, topology: Topology, settings: HopSettings) -> Stage:
    def start(parties: Parties, key: Key) -> Start:
        return _down_start(settings, parties.cloud_relay, parties.cloud, taught=False)

    def end(parties: Parties, state: HopState) -> Parties:
        sender = np.zeros(topology.num_edges, np.int32)
        sent = replace(parties.cloud_relay, generator=state.kept, student=state.student)
        received = take(sent, sender)
        return replace(
            parties,
            cloud_relay=sent,
            edge=received.student,
            edge_relay=replace(
                parties.edge_relay,
                generator=received.generator,
                label_counts=received.label_counts,
            ),
        )

    return hop_stage(
        leg,
        settings,
        num_parties=1,
        start=start,
        end=end,
        deliveries=lambda parties: [
            Delivery("cloud_edge", "down", parties.cloud_relay, topology.num_edges)
        ],
    )


def _down_edge_end(leg: Leg, topology: Topology, settings: HopSettings) -> Stage:
    def start(parties: Parties, key: Key) -> Start:
        return _down_start(settings, parties.edge_relay, parties.edge, taught=True)

    def end(parties: Parties, state: HopState) -> Parties:
        sent = replace(parties.edge_relay, generator=state.kept, student=state.student)
        ends = (take(sent.student, topology.edge_of_device),)
        return replace(parties, edge_relay=sent, end=ends)

    return hop_stage(
        leg,
        settings,
        num_parties=topology.num_edges,
        start=start,
        end=end,
        deliveries=lambda parties: [
            Delivery("edge_end", "down", parties.edge_relay, topology.num_devices)
        ],
    )


def _down_start(
    settings: HopSettings,
    relay: GeneratorAndStudent,
    senders: Variables,
    *,
    taught: bool,
) -> Start:
    """The sender alone teaches; `taught` says whether a hop trained it from scratch."""
    counts = jnp.asarray(relay.label_counts)[:, None]
    teachers = settings.teachers((as_members(senders),), counts, [taught])
    return Start(relay.student, relay.generator, teachers)


def _up_end_edge(
    leg: Leg, topology: Topology, private: np.ndarray, settings: HopSettings
) -> Stage:
    edges = topology.num_edges
    devices = as_counts(private.reshape(edges, topology.devices_per_edge, -1))

    def start(parties: Parties, key: Key) -> Start:
        groups = (as_groups(parties.end[0], edges), as_members(parties.edge))
        came_down = parties.edge_relay.label_counts[:, None]
        counts = jnp.concatenate([devices, came_down], axis=1)
        taught = [*(False for _ in devices[0]), True]
        teachers = settings.teachers(groups, counts, taught)
        return Start(parties.edge, parties.edge_relay.generator, teachers)

    def end(parties: Parties, state: HopState) -> Parties:
        relay = replace(parties.edge_relay, generator=state.kept)
        return replace(parties, edge=state.student, edge_relay=relay)

    return hop_stage(
        leg,
        settings,
        num_parties=edges,
        start=start,
        end=end,
        deliveries=lambda parties: [_up(parties.end[0], private, "edge_end")],
    )


def _up_edge_cloud(
    leg: Leg, topology: Topology, evidence: Evidence, settings: HopSettings
) -> Stage:
    devices = evidence.private.reshape(
        topology.num_edges, topology.devices_per_edge, -1
    )
    below = as_counts(devices.sum(axis=1))

    def start(parties: Parties, key: Key) -> Start:
        groups = (as_groups(parties.edge, 1), as_members(parties.cloud))
        counts = jnp.concatenate([below, parties.cloud_relay.label_counts])
        # The cloud's net began with public images.
        taught = [*(True for _ in below), False]
        teachers = settings.teachers(groups, counts[None], taught)
        return Start(parties.cloud, parties.cloud_relay.generator, teachers)

    def end(parties: Parties, state: HopState) -> Parties:
        relay = replace(
            parties.cloud_relay,
            generator=state.kept,
            label_counts=as_counts(evidence.public + below.sum(axis=0))[None],
        )
        return replace(parties, cloud=state.student, cloud_relay=relay)

    return hop_stage(
        leg,
        settings,
        num_parties=1,
        start=start,
        end=end,
        deliveries=lambda parties: [_up(parties.edge, below, "cloud_edge")],
    )


def _up(variables: Variables, counts: np.ndarray, link: str) -> Delivery:
    messages = TeacherWeights(variables, as_counts(counts))
    return Delivery(link, "up", messages, counts.shape[0])
