"""From a config and a dataset to the images of each party."""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from ecogen_jax.config import ConfigError
from ecogen_jax.config_federated import is_federated
from ecogen_jax.config_hops import devices_train
from ecogen_jax.data import partition, partition_kinds, sources
from ecogen_jax.relay import learn
from ecogen_jax.relay.parties import Topology
from ecogen_jax.relay.settings import Evidence, Images

Labelled = tuple[np.ndarray, np.ndarray]
CHUNK = 5000
"""Images that are resized at once."""

# The field of `data` that decides whether a partition gives each device a batch.
_RULED_BY = {
    **dict.fromkeys(("dirichlet", "dirichlet_capped", "quantity", "domain"), "alpha"),
    "shards": "shards_per_client",
}

LABEL_SPACES = (("fake",), ("mnist", "usps", "digits"), ("fashion_mnist",))
"""Datasets whose classes are the same; where several spaces meet, in this order."""


class Shares(NamedTuple):
    """The images of each party.

    Attributes:
      images: for training.
      evidence: their counts by class.
      validation: validation images and labels.
      arrays: the split, for the run folder. If edges differ in dataset, it gives the
        domain (of `data.domains`) of each device and image: `device_domains`
        `[devices]`, `test_domains` and `validation_domains` `[images]`.
    """

    images: Images
    evidence: Evidence
    validation: Labelled
    arrays: dict[str, np.ndarray]


def load(config: ConfigDict) -> sources.Dataset:
    """The images of a run: those of `data.name`, or of all `data.domains` in its shape.

    Domains are concatenated. Domains with the same classes share their labels; the
    labels of others follow, see `LABEL_SPACES`.

    Args:
      config: of the run.

    Raises:
      DataUnavailableError: no provider has one of the datasets.
    """

    def source(name: str) -> sources.Dataset:
        folder = config.data.folder if name == config.data.name else ""
        return sources.load(name, folder=folder)

    return _joined(config, source, resized)


def outline(config: ConfigDict) -> sources.Dataset:
    """What `load` gives, without fetching it: see `sources.outline`."""

    def blank(images: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
        return np.broadcast_to(np.uint8(0), (len(images), *shape))

    return _joined(config, sources.outline, blank)


def _joined(
    config: ConfigDict,
    source: Callable[[str], sources.Dataset],
    fitted: Callable[[np.ndarray, tuple[int, int, int]], np.ndarray],
) -> sources.Dataset:
    if not config.data.domains:
        return source(config.data.name)
    found = {name: source(name) for name in config.data.domains}
    height, width, channels = found[config.data.name].train_images.shape[1:]
    first = _first_labels(found)

    def images(half: str) -> np.ndarray:
        each = (getattr(one, f"{half}_images") for one in found.values())
        return np.concatenate([fitted(one, (height, width, channels)) for one in each])

    def labels(half: str) -> np.ndarray:
        each = [getattr(one, f"{half}_labels") for one in found.values()]
        shifts = [np.int32(first[name]) for name in found]
        return np.concatenate([a + b for a, b in zip(each, shifts, strict=True)])

    ends = [first[name] + one.num_classes for name, one in found.items()]
    return sources.Dataset(
        config.data.name,
        train_images=images("train"),
        train_labels=labels("train"),
        test_images=images("test"),
        test_labels=labels("test"),
        num_classes=max(ends),
        synthetic=any(one.synthetic for one in found.values()),
        provider=", ".join(f"{name}: {one.provider}" for name, one in found.items()),
    )


def _first_labels(found: Mapping[str, sources.Dataset]) -> dict[str, int]:
    """The label that the first class of each dataset gets."""
    first, free = {}, 0
    for space in LABEL_SPACES:
        members = [name for name in space if name in found]
        first.update(dict.fromkeys(members, free))
        free += max((found[name].num_classes for name in members), default=0)
    return first


def share(config: ConfigDict, dataset: sources.Dataset, topology: Topology) -> Shares:
    """Splits the training images into public, private and validation.

    Args:
      config: of the run.
      dataset: its images, from `load`. Where edges differ in dataset, public images are
        from `data.name` alone, and all others' training images are private.
      topology: how many devices share the private half.

    Raises:
      ConfigError: the dataset lacks a class that the public half shall lack, or has
        too few images for a half or for the devices.
    """
    rng = np.random.default_rng(config.seed)
    labels = dataset.train_labels
    domains = _domains(config, "train", len(labels))
    split = _split(config, labels, domains, rng)
    _check_split(config, split, domains)
    own = split.private_train
    parts = _private_parts(config, labels[own], domains[own], topology, rng)
    counts = partition.label_counts(labels[own], parts, dataset.num_classes)
    public = split.public_train
    seen = np.bincount(labels[public], minlength=dataset.num_classes)
    chosen_on = np.concatenate([split.public_validation, split.private_validation])
    arrays = partition.as_arrays(split, parts) | {"label_counts": counts}
    if config.data.domains:
        arrays |= {
            "device_domains": np.repeat(
                _edge_domains(config), topology.devices_per_edge
            ),
            "test_domains": _domains(config, "test", len(dataset.test_labels)),
            "validation_domains": domains[chosen_on],
        }
    return Shares(
        images=Images(
            public=_data(
                dataset.train_images[public][None],
                labels[public][None],
                np.array([len(public)]),
            ),
            private=partition.hold(
                dataset.train_images, labels, [own[part] for part in parts]
            ),
        ),
        evidence=Evidence(seen, counts),
        validation=(dataset.train_images[chosen_on], labels[chosen_on]),
        arrays=arrays,
    )


def _domains(config: ConfigDict, half: str, num_images: int) -> np.ndarray:
    """Which of `data.domains` each image of a half is from, `[images]`."""
    if not config.data.domains:
        return np.zeros(num_images, np.int64)
    each = (sources.outline(name) for name in config.data.domains)
    sizes = [len(getattr(one, f"{half}_labels")) for one in each]
    return np.repeat(np.arange(len(sizes)), sizes)


def _edge_domains(config: ConfigDict) -> np.ndarray:
    return np.arange(config.topology.num_edges) % len(config.data.domains)


def _split(
    config: ConfigDict, labels: np.ndarray, domains: np.ndarray, rng: Any
) -> partition.Split:
    """Splits each domain by itself: only that of `data.name` has a public half."""
    pieces = []
    for domain, name in enumerate(config.data.domains or (config.data.name,)):
        here = np.flatnonzero(domains == domain)
        is_public = name == config.data.name
        if is_public:
            _check_missing(config, labels[here])
        piece = partition.split(
            labels[here],
            public_fraction=config.data.public_fraction if is_public else 0.0,
            validation_fraction=config.data.validation_fraction,
            public_missing_classes=(
                config.data.public_missing_classes if is_public else ()
            ),
            rng=rng,
        )
        pieces.append([here[positions] for positions in piece])
    return partition.Split(
        *(np.concatenate(of_domains) for of_domains in zip(*pieces, strict=True))
    )


def _check_split(
    config: ConfigDict, split: partition.Split, domains: np.ndarray
) -> None:
    total, data = sum(map(len, split)), config.data
    _check_validation(config, split, domains)
    halves = {
        "public": (split.public_train, data.public_fraction > 0),
        "private": (split.private_train, data.public_fraction < 1),
    }
    for half, (images, wanted) in halves.items():
        if wanted and not len(images):
            raise ConfigError(
                "data.public_fraction",
                data.public_fraction,
                f"one that leaves {half} images to train on, of {total} training "
                f"images with data.validation_fraction = {data.validation_fraction}",
            )


def _check_validation(
    config: ConfigDict, split: partition.Split, domains: np.ndarray
) -> None:
    """Checks that there are validation images of each domain."""
    fraction = config.data.validation_fraction
    chosen_on = np.concatenate([split.public_validation, split.private_validation])
    for domain, name in enumerate(config.data.domains or (config.data.name,)):
        if not (domains[chosen_on] == domain).any():
            total = np.count_nonzero(domains[np.concatenate(split)] == domain)
            raise ConfigError(
                "data.validation_fraction",
                fraction,
                f"a larger one, that keeps some of the {total} training images of "
                f"{name} for validation",
            )


def _check_missing(config: ConfigDict, labels: np.ndarray) -> None:
    missing = config.data.public_missing_classes
    first, end = labels.min(), labels.max() + 1
    if not set(missing) < set(range(first, end)):
        raise ConfigError(
            "data.public_missing_classes",
            missing,
            f"some, not all, of the classes from {first}, and below {end}, which are "
            f"those of {config.data.name}",
        )


def fewest(config: ConfigDict) -> tuple[str, int]:
    """The fewest images of a device: the field that sets it, and the number."""
    field = f"{'federated' if is_federated(config) else 'local'}.batch_size"
    return field, attrgetter(field)(config) if devices_train(config) else 1


def _private_parts(
    config: ConfigDict,
    labels: np.ndarray,
    domains: np.ndarray,
    topology: Topology,
    rng: Any,
) -> list[np.ndarray]:
    """Positions of each device's images; if no device trains, for evaluation only."""
    if not len(labels):
        return [np.zeros(0, np.int64)] * topology.num_devices
    field, least = fewest(config)
    if topology.num_devices * least > len(labels):
        raise ConfigError(
            "topology.devices_per_edge",
            topology.devices_per_edge,
            f"few enough that {topology.num_devices} devices with {least} images each "
            f"(a {field} where they train) need no more than the "
            f"{len(labels)} private training images",
        )
    try:
        return _parts_of_kind(config, labels, domains, topology, least, rng)
    except ValueError as error:
        field = _RULED_BY.get(config.data.partition, "partition")
        raise ConfigError(
            f"data.{field}",
            config.data[field],
            f"one that gives each device a batch of private images ({error})",
        ) from error


def _parts_of_kind(
    config: ConfigDict,
    labels: np.ndarray,
    domains: np.ndarray,
    topology: Topology,
    least: int,
    rng: Any,
) -> list[np.ndarray]:
    alpha, size = config.data.alpha, len(labels)
    wanted: dict[str, Any] = {
        "num_clients": topology.num_devices,
        "min_size": least,
        "rng": rng,
    }
    match config.data.partition:
        case "iid":
            return partition_kinds.iid(size, **wanted)
        case "quantity":
            return partition_kinds.quantity(size, alpha=alpha, **wanted)
        case "shards":
            each = config.data.shards_per_client
            return partition_kinds.shards(labels, shards_per_client=each, **wanted)
        case "domain":
            return partition_kinds.by_domain(
                labels,
                domains,
                edge_domains=_edge_domains(config),
                clients_per_edge=topology.devices_per_edge,
                alpha=alpha,
                min_size=least,
                rng=rng,
            )
        case kind:
            capped = kind == "dirichlet_capped"
            return partition_kinds.dirichlet(
                labels, alpha=alpha, capped=capped, **wanted
            )


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
    if images.shape[1:] == shape:
        return images
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
