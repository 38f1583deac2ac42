"""From a config to a federation: its method, its engine, and its schedule."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ecogen_jax import mesh
from ecogen_jax.config_federated import ROUNDS, is_federated
from ecogen_jax.relay.distillers.base import Hop
from ecogen_jax.relay.federated import FEDERATED, privacy
from ecogen_jax.relay.federated.aggregate import AGGREGATORS
from ecogen_jax.relay.federated.base import (
    Aggregate,
    Distillation,
    Local,
    Maker,
    Member,
    Method,
    Task,
)
from ecogen_jax.relay.federated.compression import Compression, compression
from ecogen_jax.relay.federated.engine import federation
from ecogen_jax.relay.federated.local import ordered
from ecogen_jax.relay.federated.schedule import Faults, Schedule, schedule
from ecogen_jax.relay.learn import Data
from ecogen_jax.relay.parties import Nets, Topology
from ecogen_jax.relay.settings import FederatedSettings, Leg
from ecogen_jax.relay.stage import Mapping
from ecogen_jax.run.build_route import (
    WEIGHINGS,
    distiller_of,
    generation,
    kind_of,
    study,
)
from ecogen_jax.serve.inference import flops_per_image
from ecogen_jax.types import Key, PyTree


def federated(
    config: ConfigDict,
    nets: Nets,
    topology: Topology,
    *,
    public: np.ndarray,
    num_classes: int,
) -> FederatedSettings | None:
    """The federation of a config, or None if its protocol is not federated.

    Args:
      config: of the run.
      nets: of the cloud and of every device, which are the same, and the generator.
      topology: how many devices there are.
      public: images of the cloud, uint8 `[size, height, width, channels]`: the proxy
        images of FedDF, not used by other methods.
      num_classes: number of labels.

    Raises:
      ConfigError: a distiller has no use for its weights.
    """
    if not is_federated(config):
        return None
    section = config.federated
    task = _task(config, nets, topology, public, num_classes)
    method = FEDERATED[config.protocol.name](task)
    engine = federation(
        method,
        num_devices=topology.num_devices,
        compression=_compression(config, method, task),
        clip=section.privacy.clip,
        linear=section.aggregator == "mean",
        mapping=mapping(config, nets, public.shape[1:]),
    )
    return FederatedSettings(
        rounds=section.rounds,
        evaluate_every=section.evaluate_every,
        num_edges=topology.num_edges,
        method=method,
        engine=engine,
        plan=_plan(config, topology),
    )


SMALL_ROUND = 3e7
"""FLOPs of a federated round up to which one simulated device was faster than two.

Two have to be woken and to meet: 0.65 ms on one against 0.89 on two for 28 million of
logistic regression, and 0.94 against 1.04 for 24 million of `cnn_small`, but 1.99
against 1.49 for 39 million of `cnn_fedgen` (on the cores of docs/benchmarks.md)."""


def mapping(config: ConfigDict, nets: Nets, shape: tuple[int, int, int]) -> Mapping:
    """How parties are mapped to the devices of the machine.

    With `mesh.backend = "auto"`, a small federated round is done by one device.

    Args:
      config: of the run.
      nets: of the parties.
      shape: height, width and channels of one image.
    """
    section, local = config.mesh, config.federated
    backend, num_devices = mesh.resolve(section.backend), section.num_devices
    if section.backend == "auto" and backend == "shard_map" and is_federated(config):
        images = local.active * local.steps * local.batch_size
        # Both gradients of a layer take as many FLOPs as the layer itself.
        if 3 * images * flops_per_image(nets.end[0], shape) < SMALL_ROUND:
            num_devices = 1
    return Mapping(backend, num_devices, section.chunk)


def _task(
    config: ConfigDict,
    nets: Nets,
    topology: Topology,
    public: np.ndarray,
    num_classes: int,
) -> Task:
    """The task of the method; see `federated` for the arguments."""
    section, name, shape = config.federated, config.protocol.name, public.shape[1:]
    return Task(
        net=nets.end[0],
        shape=shape,
        num_classes=num_classes,
        num_devices=topology.num_devices,
        active=section.active,
        num_edges=topology.num_edges,
        local=_local(config),
        share=section.share,
        keeps_statistics=section.statistics != "average",
        aggregate=_aggregate(config),
        options=dict(section.get(name, {})),
        proxy=public if name == "feddf" else public[:0],
        maker=Maker(nets.generator, config.generator.latent_size),
        distillation=_distillation(config, nets, shape, num_classes),
        sends_statistics=section.statistics != "local",
    )


def _local(config: ConfigDict) -> Local:
    section = config.federated
    return Local(
        steps=section.steps,
        batch_size=section.batch_size,
        learning_rate=section.learning_rate,
        decay=section.decay,
        momentum=section.momentum,
        stragglers=section.faults.straggler > 0,
    )


def _distillation(
    config: ConfigDict, nets: Nets, shape: tuple[int, int, int], num_classes: int
) -> Distillation | None:
    """The whole hop of `up_end_cloud` in each round, or None for other methods."""
    if config.protocol.name not in ROUNDS:
        return None
    leg, section = Leg("end", "cloud", returns=True), config.up_end_cloud
    how, kind = generation(config, leg, shape, num_classes), kind_of(config, leg)
    taught = study(section, keep_statistics=True)
    hop = Hop(nets.cloud, nets.end, nets.generator, how, taught)
    return Distillation(
        distiller=distiller_of(section, kind, hop),
        generation=how,
        weigh=WEIGHINGS[section.teacher_weights],
        steps=section.rounds * section.steps,
        reads_logits=kind.reads_logits,
    )


def _aggregate(config: ConfigDict) -> Aggregate:
    section = config.federated
    chosen, private = AGGREGATORS[section.aggregator], section.privacy

    def aggregate(updates: PyTree, weights: jax.Array, key: Key) -> PyTree:
        mean = chosen(updates, weights)
        if not private.clip:
            return mean
        # The sum of the accepted updates over the number of sampled devices, so one
        # device changes it by at most `clip / active`, even if others were refused.
        share = jnp.sum(weights) / section.active
        return privacy.noise(
            key,
            jax.tree.map(lambda leaf: share * leaf, mean),
            max_norm=private.clip,
            noise_multiplier=private.noise_multiplier,
            clients=section.active,
        )

    return aggregate


def _compression(config: ConfigDict, method: Method, task: Task) -> Compression:
    """The compression for updates of the method's shapes."""

    def update() -> PyTree:
        key, scalar = jax.random.key(0), np.int32(0)
        member = Member(
            device=jnp.int32(0),
            edge=jnp.int32(0),
            data=Data(
                np.zeros((1, *task.shape), np.uint8), np.zeros(1, np.int32), scalar
            ),
            counts=np.zeros(task.num_classes, np.float32),
            share=jnp.float32(1.0),
            number=jnp.int32(0),
        )
        member = jax.tree.map(jnp.asarray, member)
        server = method.init(key)
        received = method.send(server, member.edge)
        own = method.own(key)
        return method.train(received, own, ordered(member, key), key).update

    section = config.federated
    like = jax.eval_shape(update)
    return compression(section.compression, keep=section.keep, like=like)


def _plan(config: ConfigDict, topology: Topology) -> Schedule:
    section = config.federated
    return schedule(
        np.random.default_rng((config.seed, 1)),
        rounds=section.rounds,
        num_devices=topology.num_devices,
        active=section.active,
        steps=section.steps,
        edges_of=topology.edge_of_device,
        faults=Faults(**section.faults.to_dict()),
    )


def schedule_arrays(federation: FederatedSettings | None) -> dict[str, np.ndarray]:
    """The schedule for the run folder, beside the partition."""
    if federation is None:
        return {}
    plan = federation.plan._asdict()
    return {f"schedule_{name}": array for name, array in plan.items()}
