"""From a config to everything a run needs, with `build_data` and its neighbours."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from ecogen_jax import keys
from ecogen_jax.config import HOPS, LEARNING, ConfigError, check
from ecogen_jax.data import sources
from ecogen_jax.energy import constants, devices
from ecogen_jax.energy import rates as energy_rates
from ecogen_jax.nets.classifier import CLASSIFIERS, classifier
from ecogen_jax.nets.functional import Net
from ecogen_jax.nets.generator import generator
from ecogen_jax.nets.precision import PRECISIONS, at_precision
from ecogen_jax.relay.distillers import DISTILLERS
from ecogen_jax.relay.parties import Nets, Parties, Topology, initialise
from ecogen_jax.relay.protocols import PROTOCOLS
from ecogen_jax.relay.settings import ReplaySettings, Settings
from ecogen_jax.relay.stage import Mapping, Stage
from ecogen_jax.run import build_data
from ecogen_jax.run.build_data import Labelled, resized, share
from ecogen_jax.run.build_federated import federated, mapping, schedule_arrays
from ecogen_jax.run.build_route import hops, learning, route

CHOICES = {
    "data.name": sources.NAMES,
    "protocol.name": tuple(PROTOCOLS),
    "nets.cloud": CLASSIFIERS,
    "nets.edge": CLASSIFIERS,
    "nets.end": CLASSIFIERS,
    "nets.precision": PRECISIONS,
    "energy.cloud_device": constants.names("devices", devices.TRAINING),
    "energy.edge_device": constants.names("devices", devices.TRAINING),
    "energy.end_device": constants.names("devices", devices.TRAINING),
    "energy.cloud_edge_link": constants.names("links"),
    "energy.edge_end_link": constants.names("links"),
    "energy.country": constants.names("grid"),
    "energy.cloud_water": (energy_rates.NO_WATER, *constants.names("wue")),
} | {f"{hop}.distiller": tuple(DISTILLERS) for hop in HOPS}
"""The names that a config may use, from the registries."""

Shape = tuple[int, int, int]


class Plan(NamedTuple):
    """One stage of one cycle; cycle 0 comes before the first."""

    cycle: int
    stage: Stage


class Experiment(NamedTuple):
    """All that a run needs, built from a config.

    Attributes:
      dataset: the images, test split included.
      validation: validation images and labels.
      topology: how many parties there are.
      nets: the classifier of each tier.
      parties: all parties, untrained; only shapes in an outline.
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


def build(config: ConfigDict) -> Experiment:
    """Builds the experiment that a config describes.

    Raises:
      ConfigError: the config names something unknown, or asks for what the data does
        not allow.
      DataUnavailableError: no provider has the dataset.
    """
    check(config, CHOICES)
    dataset = build_data.load(config)

    def pictures(name: str) -> np.ndarray:
        shape = dataset.train_images.shape[1:]
        return resized(sources.load(name).train_images, shape)

    return _assemble(config, dataset, untrained, pictures)


def outline(config: ConfigDict) -> Experiment:
    """Builds the parts that a forecast needs: no data is fetched, nothing is drawn.

    Images are blank and labels have the true counts; so shapes, sizes and the number of
    parties are as in `build`, but values are not.

    Raises:
      ConfigError: as `build`.
    """
    check(config, CHOICES)

    def shapes(config: ConfigDict, nets: Nets, num_classes: int) -> Parties:
        return jax.eval_shape(lambda: untrained(config, nets, num_classes))

    dataset = build_data.outline(config)

    def pictures(name: str) -> np.ndarray:
        count = len(sources.outline(name).train_labels)
        return np.broadcast_to(np.uint8(0), (count, *dataset.train_images.shape[1:]))

    return _assemble(config, dataset, shapes, pictures)


def _assemble(
    config: ConfigDict,
    dataset: sources.Dataset,
    parties: Callable[[ConfigDict, Nets, int], Parties],
    pictures: Callable[[str], np.ndarray],
) -> Experiment:
    shape = dataset.train_images.shape[1:]
    _check_shifts(config, shape)
    topology = Topology(**config.topology)
    shares = share(config, dataset, topology)
    nets = build_nets(config, shape, dataset.num_classes)
    way = route(config, pictures)
    federation = federated(
        config,
        nets,
        topology,
        public=shares.images.public.images[0],
        num_classes=dataset.num_classes,
    )
    start, cycle = PROTOCOLS[config.protocol.name](
        Settings(
            nets=nets,
            topology=topology,
            images=shares.images,
            evidence=shares.evidence,
            learning=learning(config, nets, way),
            hops=hops(config, nets, way, shape, dataset.num_classes),
            replay=ReplaySettings(
                config.local.replay_size, config.generator.latent_size
            ),
            route=way,
            federated=federation,
        )
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
        mapping=mapping(config, nets, shape),
        rates=_rates(config),
        partition=shares.arrays | schedule_arrays(federation),
        label_counts=shares.evidence.private,
        key=keys.root(config.seed),
    )


def _check_shifts(config: ConfigDict, shape: Shape) -> None:
    """Refuses shifts that may move an image out of its frame."""
    side = min(shape[:2])
    for name in (*LEARNING, *HOPS):
        shift = config[name].shift
        if shift >= side:
            allowed = f"less than {side}, the side of an image"
            raise ConfigError(f"{name}.shift", shift, allowed)


def build_nets(config: ConfigDict, shape: Shape, num_classes: int) -> Nets:
    """The nets for images of one shape.

    Raises:
      ConfigError: a net cannot take such images.
    """
    precision = config.nets.precision

    def net(tier: str, name: str) -> Net:
        try:
            made = classifier(name, shape=shape, num_classes=num_classes)
        except ValueError as error:
            raise ConfigError(f"nets.{tier}", name, f"another net ({error})") from error
        return at_precision(made, precision)

    maker = generator(
        shape=shape,
        num_classes=num_classes,
        latent_size=config.generator.latent_size,
        width=config.generator.width,
    )

    return Nets(
        cloud=net("cloud", config.nets.cloud),
        edge=net("edge", config.nets.edge),
        end=tuple(net("end", name) for name in config.nets.end.split(",")),
        generator=at_precision(maker, precision),
    )


def untrained(config: ConfigDict, nets: Nets, num_classes: int) -> Parties:
    """All parties before the first round."""
    key = keys.stream(keys.root(config.seed), "parties")
    return initialise(key, nets, Topology(**config.topology), num_classes=num_classes)


def _rates(config: ConfigDict) -> energy_rates.Rates:
    energy = config.energy
    if energy.include_idle:
        known = constants.names("devices", (*devices.TRAINING, "idle_power"))
        for field in (f"{tier}_device" for tier in energy_rates.TIERS):
            if energy[field] not in known:
                raise ConfigError(
                    f"energy.{field}",
                    energy[field],
                    "with energy.include_idle = True, one whose idle power is known: "
                    f"{', '.join(known)}",
                )
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
