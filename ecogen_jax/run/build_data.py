"""From a config and a dataset to who has which images."""

from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from ecogen_jax.config import ConfigError
from ecogen_jax.config_hops import devices_train
from ecogen_jax.data import partition, sources
from ecogen_jax.relay import learn
from ecogen_jax.relay.parties import Topology
from ecogen_jax.relay.settings import Evidence, Images

Labelled = tuple[np.ndarray, np.ndarray]
CHUNK = 5000
"""Images that are resized at once."""


class Shares(NamedTuple):
    """Who has which images.

    Attributes:
      images: for training.
      evidence: how many of them are of each class.
      validation: images and labels that choices are made on.
      arrays: the split, for the run folder.
    """

    images: Images
    evidence: Evidence
    validation: Labelled
    arrays: dict[str, np.ndarray]


def share(config: ConfigDict, dataset: sources.Dataset, topology: Topology) -> Shares:
    """Splits the training images into public, private and validation.

    Args:
      config: of the run.
      dataset: its images.
      topology: how many devices share the private half.

    Raises:
      ConfigError: the dataset lacks a class that the public half shall lack, or has
        too few images for the devices.
    """
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
    own_labels = labels[split.private_train]
    parts = _private_parts(config, own_labels, topology, rng)
    private = partition.pad(
        dataset.train_images[split.private_train], own_labels, parts
    )
    counts = partition.label_counts(own_labels, parts, dataset.num_classes)
    public = split.public_train
    seen = np.bincount(labels[public], minlength=dataset.num_classes)
    chosen_on = np.concatenate([split.public_validation, split.private_validation])
    return Shares(
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
    """Positions of each device's images; where none train, they are for judging."""
    if not len(labels):
        return [np.zeros(0, np.int64)] * topology.num_devices
    least = config.local.batch_size if devices_train(config) else 1
    if topology.num_devices * least > len(labels):
        raise ConfigError(
            "topology.devices_per_edge",
            topology.devices_per_edge,
            f"as many that {topology.num_devices} devices with {least} images each (a "
            "local.batch_size where they train) need no more than the "
            f"{len(labels)} private training images",
        )
    try:
        return partition.dirichlet(
            labels,
            num_clients=topology.num_devices,
            alpha=config.data.alpha,
            min_size=least,
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


def resized(images: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Grey images in another size and number of channels, by bilinear interpolation.

    Args:
      images: uint8 `[size, height, width, 1]`.
      shape: height, width and channels that are wanted.

    Returns:
      uint8 `[size, *shape]`.
    """
    height, width, channels = shape
    if images.shape[1:3] != (height, width):
        images = np.concatenate(
            [
                _interpolated(images[first : first + CHUNK], height, width)
                for first in range(0, len(images), CHUNK)
            ]
        )
    return np.repeat(images, channels, axis=-1)


def _interpolated(images: np.ndarray, height: int, width: int) -> np.ndarray:
    size = (len(images), height, width, 1)
    made = jax.image.resize(images.astype(np.float32), size, "bilinear")
    return np.asarray(made).round().clip(0, 255).astype(np.uint8)
