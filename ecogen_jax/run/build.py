"""From a config to everything a run needs: the only reader of configs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from ecogen_jax import keys, mesh
from ecogen_jax.config import HOPS, ConfigError, check
from ecogen_jax.data import partition, sources
from ecogen_jax.energy import constants
from ecogen_jax.energy import rates as energy_rates
from ecogen_jax.nets.classifier import SIZES, classifier
from ecogen_jax.nets.functional import Net
from ecogen_jax.nets.generator import generator
from ecogen_jax.relay import learn
from ecogen_jax.relay.distillers import DISTILLERS
from ecogen_jax.relay.distillers.relay import Generation, Study, Weights
from ecogen_jax.relay.parties import Nets, Parties, Topology, initialise
from ecogen_jax.relay.protocols import PROTOCOLS
from ecogen_jax.relay.settings import (
    Evidence,
    HopSettings,
    Images,
    LearnSettings,
    ReplaySettings,
)
from ecogen_jax.relay.stage import Mapping, Stage

CHOICES = {
    "data.name": sources.NAMES,
    "protocol.name": tuple(PROTOCOLS),
    "nets.cloud": tuple(SIZES),
    "nets.edge": tuple(SIZES),
    "nets.end": tuple(SIZES),
    "energy.cloud_device": constants.names("devices", constants.TRAINING),
    "energy.edge_device": constants.names("devices", constants.TRAINING),
    "energy.end_device": constants.names("devices", constants.TRAINING),
    "energy.cloud_edge_link": constants.names("links"),
    "energy.edge_end_link": constants.names("links"),
    "energy.country": constants.names("grid"),
    "energy.cloud_water": (energy_rates.NO_WATER, *constants.names("wue")),
} | {f"{hop}.distiller": tuple(DISTILLERS) for hop in HOPS}
"""The names that a config may use, from the registries."""

Labelled = tuple[np.ndarray, np.ndarray]
Shape = tuple[int, int, int]


class Plan(NamedTuple):
    """One stage of one cycle; cycle 0 comes before the first."""

    cycle: int
    stage: Stage


class Experiment(NamedTuple):
    """All that a run needs, built from a config.

    Attributes:
      dataset: the images, test split included.
      validation: images and labels that choices are made on.
      topology: how many parties there are.
      nets: the classifier of each tier.
      parties: everybody, untrained; shapes alone in an outline.
      plan: the stages in order.
      cycles: number of cycles.
      mapping: how parties are mapped to devices.
      rates: energy and carbon constants.
      partition: the split, for the run folder.
      label_counts: private training images by device and class.
      key: root of all random streams.
    """

    dataset: sources.Dataset
    validation: Labelled
    topology: Topology
    nets: Nets
    parties: Parties
    plan: list[Plan]
    cycles: int
    mapping: Mapping
    rates: energy_rates.Rates
    partition: dict[str, np.ndarray]
    label_counts: np.ndarray
    key: jax.Array


class _Shares(NamedTuple):
    images: Images
    evidence: Evidence
    validation: Labelled
    arrays: dict[str, np.ndarray]


def build(config: ConfigDict) -> Experiment:
    """Builds the experiment that a config describes.

    Raises:
      ConfigError: the config names something unknown, or asks for what the data does
        not allow.
      DataUnavailableError: no provider has the dataset.
    """
    check(config, CHOICES)
    dataset = sources.load(config.data.name, folder=config.data.folder)
    return _assemble(config, dataset, untrained)


def outline(config: ConfigDict) -> Experiment:
    """Builds what a forecast needs of an experiment: no data fetched, nothing drawn.

    Images are blank and labels have the counts of the true ones; so shapes, sizes and
    the number of parties are those that `build` gives, and values are not.

    Raises:
      ConfigError: as `build`.
    """
    check(config, CHOICES)

    def shapes(config: ConfigDict, nets: Nets, num_classes: int) -> Parties:
        return jax.eval_shape(lambda: untrained(config, nets, num_classes))

    return _assemble(config, sources.outline(config.data.name), shapes)


def _assemble(
    config: ConfigDict,
    dataset: sources.Dataset,
    parties: Callable[[ConfigDict, Nets, int], Parties],
) -> Experiment:
    topology = _topology(config)
    shares = _share(config, dataset, topology)
    shape = dataset.train_images.shape[1:]
    nets = build_nets(config, shape, dataset.num_classes)
    start, cycle = PROTOCOLS[config.protocol.name](
        nets=nets,
        topology=topology,
        images=shares.images,
        evidence=shares.evidence,
        learning=_learning(config, nets),
        hops=_hops(config, nets, shape, dataset.num_classes),
        replay=ReplaySettings(config.local.replay_size, config.generator.latent_size),
    )
    cycles = config.protocol.cycles
    return Experiment(
        dataset=dataset,
        validation=shares.validation,
        topology=topology,
        nets=nets,
        parties=parties(config, nets, dataset.num_classes),
        plan=[Plan(0, stage) for stage in start]
        + [Plan(number, stage) for number in range(1, cycles + 1) for stage in cycle],
        cycles=cycles,
        mapping=Mapping(mesh.resolve(config.mesh.backend), config.mesh.num_devices),
        rates=_rates(config),
        partition=shares.arrays,
        label_counts=shares.evidence.private,
        key=keys.root(config.seed),
    )


def build_nets(config: ConfigDict, shape: Shape, num_classes: int) -> Nets:
    """The nets for images of one shape."""

    def net(name: str) -> Net:
        return classifier(name, shape=shape, num_classes=num_classes)

    return Nets(
        cloud=net(config.nets.cloud),
        edge=net(config.nets.edge),
        end=net(config.nets.end),
        generator=generator(
            shape=shape,
            num_classes=num_classes,
            latent_size=config.generator.latent_size,
            width=config.generator.width,
        ),
    )


def untrained(config: ConfigDict, nets: Nets, num_classes: int) -> Parties:
    """All parties before the first round."""
    key = keys.stream(keys.root(config.seed), "parties")
    return initialise(key, nets, _topology(config), num_classes=num_classes)


def _topology(config: ConfigDict) -> Topology:
    return Topology(config.topology.num_edges, config.topology.devices_per_edge)


def _share(config: ConfigDict, dataset: sources.Dataset, topology: Topology) -> _Shares:
    """Splits the training images into public, private and validation."""
    rng = np.random.default_rng(config.seed)
    labels = dataset.train_labels
    missing = config.data.public_missing_classes
    if not set(missing) < set(range(dataset.num_classes)):
        raise ConfigError(
            "data.public_missing_classes",
            missing,
            f"some, not all, of the classes below {dataset.num_classes}, which are "
            f"those of {dataset.name}",
        )
    split = partition.split(
        labels,
        public_fraction=config.data.public_fraction,
        validation_fraction=config.data.validation_fraction,
        public_missing_classes=missing,
        rng=rng,
    )
    parts = _private_parts(config, labels[split.private_train], topology, rng)
    private = partition.pad(
        dataset.train_images[split.private_train], labels[split.private_train], parts
    )
    counts = partition.label_counts(
        labels[split.private_train], parts, dataset.num_classes
    )
    public = split.public_train
    seen = np.bincount(labels[public], minlength=dataset.num_classes)
    chosen_on = np.concatenate([split.public_validation, split.private_validation])
    return _Shares(
        images=Images(
            public=_data(
                dataset.train_images[public][None],
                labels[public][None],
                np.array([len(public)]),
            ),
            private=_data(*private),
        ),
        evidence=Evidence(seen, counts),
        validation=(dataset.train_images[chosen_on], labels[chosen_on]),
        arrays=partition.as_arrays(split, parts) | {"label_counts": counts},
    )


def _private_parts(
    config: ConfigDict, labels: np.ndarray, topology: Topology, rng: Any
) -> list[np.ndarray]:
    needed = topology.num_devices * config.local.batch_size
    if needed > len(labels):
        raise ConfigError(
            "topology.devices_per_edge",
            topology.devices_per_edge,
            f"as many that {topology.num_devices} devices with a local.batch_size of "
            f"{config.local.batch_size} need no more than the {len(labels)} private "
            "training images",
        )
    try:
        return partition.dirichlet(
            labels,
            num_clients=topology.num_devices,
            alpha=config.data.alpha,
            min_size=config.local.batch_size,
            rng=rng,
        )
    except ValueError as error:
        raise ConfigError(
            "data.alpha",
            config.data.alpha,
            f"one that gives each device a batch of private images ({error})",
        ) from error


def _data(images: np.ndarray, labels: np.ndarray, sizes: np.ndarray) -> learn.Data:
    return learn.Data(images, labels.astype(np.int32), sizes.astype(np.int32))


def _learning(config: ConfigDict, nets: Nets) -> dict[str, LearnSettings]:
    def settings(
        name: str, net: Net, *, learning_rate: float, replay_weight: float = 0.0
    ) -> LearnSettings:
        section = config[name]
        made = learn.learner(
            net,
            batch_size=section.batch_size,
            learning_rate=learning_rate,
            total_steps=section.rounds * section.steps,
            temperature=config.down_edge_end.temperature,
            replay_weight=replay_weight,
        )
        return LearnSettings(section.rounds, section.steps, made)

    local = config.local
    return {
        "pretrain": settings(
            "pretrain", nets.cloud, learning_rate=config.pretrain.learning_rate
        ),
        "local_only": settings(
            "local", nets.end, learning_rate=local.scratch_learning_rate
        ),
        "local": settings(
            "local",
            nets.end,
            learning_rate=local.learning_rate,
            replay_weight=local.replay_weight,
        ),
    }


def _hops(
    config: ConfigDict, nets: Nets, shape: Shape, num_classes: int
) -> dict[str, HopSettings]:
    def hop(name: str, student: Net, teachers: tuple[Net, ...]) -> HopSettings:
        section = config[name]
        distiller = DISTILLERS[section.distiller](
            student,
            teachers,
            nets.generator,
            generation=Generation(
                shape=shape,
                num_classes=num_classes,
                latent_size=config.generator.latent_size,
                batch_size=section.batch_size,
                bank_size=section.bank_size,
                learning_rate=section.generator_learning_rate,
                weights=Weights(**section.weights.to_dict()),
                adversarial_mask=section.adversarial_mask,
            ),
            study=Study(
                steps=section.student_steps,
                total_steps=section.rounds * section.steps * section.student_steps,
                learning_rate=section.learning_rate,
                temperature=section.temperature,
                keep_statistics=name.startswith("up"),
            ),
        )
        return HopSettings(section.rounds, section.steps, distiller)

    return {
        "down_cloud_edge": hop("down_cloud_edge", nets.edge, (nets.cloud,)),
        "down_edge_end": hop("down_edge_end", nets.end, (nets.edge,)),
        "up_end_edge": hop("up_end_edge", nets.edge, (nets.end, nets.edge)),
        "up_edge_cloud": hop("up_edge_cloud", nets.cloud, (nets.edge, nets.cloud)),
    }


def _rates(config: ConfigDict) -> energy_rates.Rates:
    energy = config.energy
    return energy_rates.rates(
        devices={tier: energy[f"{tier}_device"] for tier in energy_rates.TIERS},
        links={link: energy[f"{link}_link"] for link in energy_rates.LINKS},
        country=energy.country,
        contracted_share={
            tier: energy[f"{tier}_contracted_share"] for tier in energy_rates.TIERS
        },
        link_view=energy.link_view,
        include_idle=energy.include_idle,
        cloud_water=energy.cloud_water,
    )
