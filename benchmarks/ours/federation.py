"""Our federations on generated arrays, built from configs as in a run."""

from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from benchmarks import nets, tasks
from ecogen_jax import config as config_lib
from ecogen_jax.config_presets import federated as published
from ecogen_jax.data import sources
from ecogen_jax.data.partition import hold
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.learn import Data
from ecogen_jax.relay.messages import GeneratorAndStudent
from ecogen_jax.relay.parties import Nets, Parties, Topology
from ecogen_jax.relay.protocols import PROTOCOLS
from ecogen_jax.relay.settings import (
    Evidence,
    Images,
    ReplaySettings,
    Route,
    Settings,
)
from ecogen_jax.relay.stage import Mapping, Stage
from ecogen_jax.run import build_data
from ecogen_jax.run.build import build_nets
from ecogen_jax.run.build_federated import federated
from ecogen_jax.run.build_federated import mapping as used

ROUNDS = 500
"""Rounds of the schedule, which is gone through again and again."""

ALONE = Mapping("auto", 1)
"""On one JAX device."""

_NOTHING = Variables({}, {})
_NO_RELAY = GeneratorAndStudent(_NOTHING, _NOTHING, np.zeros((0, 0), np.int32))
NOBODY = Parties(_NOTHING, _NOTHING, (), _NO_RELAY, _NO_RELAY)
"""The parties before a stage that asks none of them."""


class Made(NamedTuple):
    """A federation.

    Attributes:
        stage: its only one.
        mapping: of its devices to JAX devices, as in a run of its config.
    """

    stage: Stage
    mapping: Mapping


def of_task(
    name: str, mapping: Mapping, *, edges: int = 1, faulty: bool = False
) -> Made:
    """FedAvg on a task that peers do too.

    Args:
        name: of the task.
        mapping: what the config asks for.
        edges: more than one make the federation hierarchical.
        faulty: whether messages are dropped and corrupted, and devices straggle.

    Returns:
        The federation.
    """
    task = tasks.TASKS[name]
    config = config_lib.default()
    config.protocol.name = "hierarchical" if edges > 1 else "fedavg"
    config.topology.update(num_edges=edges, devices_per_edge=task.clients // edges)
    config.federated.update(rounds=ROUNDS, active=task.clients, steps=task.steps)
    config.federated.update(batch_size=task.batch, learning_rate=tasks.LEARNING_RATE)
    config.federated.decay = 1.0
    if faulty:
        config.federated.faults.update(drop=0.1, nan=0.02, stale=0.02, straggler=0.1)
    config.mesh.update(mapping._asdict())
    images, labels = tasks.data(task)
    net = nets.of_task(task)
    parts = [*np.arange(labels.size).reshape(labels.shape)]
    counts = np.stack([np.bincount(each, minlength=task.classes) for each in labels])
    blank = Data(images[:1, :0], labels[:1, :0], np.zeros(1, np.int32))
    return _stage(
        config,
        Nets(net, net, (net,), generator=net),  # never called: there is none
        Images(blank, hold(images.reshape(-1, *task.shape), labels.reshape(-1), parts)),
        Evidence(np.zeros(task.classes, np.int64), counts),
    )


def fedgen(mapping: Mapping) -> Made:
    """FedGen's published protocol, on noise in the shape of MNIST with its labels."""
    config = published("benchmark_fedgen", "fedgen")
    config.mesh.update(mapping._asdict())
    blank = sources.outline("mnist")
    shape = blank.train_images.shape
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    dataset = blank._replace(train_images=noise)
    shares = build_data.share(config, dataset, _topology(config))
    all_nets = build_nets(config, shape[1:], dataset.num_classes)
    return _stage(config, all_nets, shares.images, shares.evidence)


def _stage(
    config: ConfigDict, all_nets: Nets, images: Images, evidence: Evidence
) -> Made:
    topology = _topology(config)
    federation = federated(
        config,
        all_nets,
        topology,
        public=images.public.images[0],
        num_classes=evidence.private.shape[1],
    )
    _, (stage,) = PROTOCOLS[config.protocol.name](
        Settings(
            nets=all_nets,
            topology=topology,
            images=images,
            evidence=evidence,
            learning={},
            hops={},
            replay=ReplaySettings(0, 0),
            route=Route(start=(), baselines=(), images={}, legs=()),
            federated=federation,
        )
    )
    return Made(stage, used(config, all_nets, images.public.images.shape[2:]))


def _topology(config: ConfigDict) -> Topology:
    return Topology(config.topology.num_edges, config.topology.devices_per_edge)
