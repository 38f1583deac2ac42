"""The first senders of a run, taken from a finished run instead of being trained."""

import dataclasses
import hashlib
from operator import attrgetter
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from ecogen_jax import mesh
from ecogen_jax.config import ConfigError
from ecogen_jax.config_federated import has_cloud_net, is_federated
from ecogen_jax.config_hops import first_tier
from ecogen_jax.relay.parties import Parties
from ecogen_jax.run.build_data import fewest
from ecogen_jax.run.checkpoint import CheckpointError
from ecogen_jax.run.results import load_run
from ecogen_jax.types import PyTree

DATA = (
    "seed",
    "data.name",
    "data.alpha",
    "data.public_fraction",
    "data.public_missing_classes",
    "data.validation_fraction",
    "data.partition",
    "data.shards_per_client",
    "data.domains",
)
"""Fields that decide which images are whose: they have to be equal in both runs."""

TOPOLOGY = ("topology.num_edges", "topology.devices_per_edge")


class Start(NamedTuple):
    """What a run starts with.

    Attributes:
      parties: everybody; the first senders are trained.
      baselines: those that the other run has for them.
      manifest: for `manifest.json`: `path` of the other run and `sha256` of its nets;
        None where no run was named.
    """

    parties: Parties
    baselines: dict[str, Any]
    manifest: dict[str, str] | None


def start(config: ConfigDict, parties: Parties) -> Start:
    """Takes the first senders from the run that `protocol.start_from` names, if any.

    They are taken from its end. After a relay cycle these nets have also learnt from
    other parties, so `local_only` is not about them.

    Args:
      config: of the run that starts.
      parties: untrained.

    Raises:
      ConfigError: the other run is not finished or is damaged, never trained those
        nets, has another net, split other data, or has a route that taught its first
        senders again.
    """
    path = config.protocol.start_from
    if not path:
        return Start(parties, {}, None)
    try:
        other = load_run(path)
    except (FileNotFoundError, ValueError, CheckpointError) as error:
        raise ConfigError(
            "protocol.start_from", path, f"the folder of a finished run ({error})"
        ) from error
    tier = first_tier(config)
    _check_same(config, other.config, tier)
    taken = mesh.to_host(getattr(other.parties, tier))
    baselines = {}
    alone = other.summary["baselines"].get("local_only")
    if alone and tier == "end" and other.config.protocol.name == "hops":
        baselines["local_only"] = alone
    return Start(
        dataclasses.replace(parties, **{tier: taken}),
        baselines,
        {"path": path, "sha256": digest(taken)},
    )


def digest(tree: PyTree) -> str:
    """SHA-256 of arrays: their places in the tree, types, shapes and bytes."""
    found = hashlib.sha256()
    for place, leaf in jax.tree.leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        header = f"{jax.tree_util.keystr(place)} {array.dtype} {array.shape}"
        found.update(header.encode())
        found.update(array.tobytes())
    return found.hexdigest()


def _trains(config: ConfigDict, tier: str) -> bool:
    """Whether a tier's nets are other than untrained at the end of a run."""
    if config.protocol.name == "hops":
        taught = any(leg.endswith(f">{tier}") for leg in config.protocol.route)
        return taught or first_tier(config) == tier
    return tier == "end" or not is_federated(config) or has_cloud_net(config)


def _check_same(config: ConfigDict, other: ConfigDict, tier: str) -> None:
    if not _trains(other, tier):
        raise ConfigError(
            "protocol.start_from",
            config.protocol.start_from,
            f"a run that trains the {tier}; that run's {tier} was never trained",
        )
    again = [leg for leg in other.protocol.route if leg.endswith(f">{tier}")]
    if again and first_tier(other) == tier:
        raise ConfigError(
            "protocol.start_from",
            config.protocol.start_from,
            f"a run whose route does not teach the {tier} again, as {again[0]!r} does",
        )
    fields = (f"nets.{tier}", *DATA, *(TOPOLOGY if tier == "end" else ()))
    for field in fields:
        here, there = attrgetter(field)(config), attrgetter(field)(other)
        if here != there:
            raise ConfigError(
                field, here, f"{there!r}, as in the run of protocol.start_from"
            )
    (field, least), (_, theirs) = fewest(config), fewest(other)
    if tier == "end" and least != theirs:
        raise ConfigError(
            field,
            least,
            f"{theirs}, the fewest images of a device in the run of "
            "protocol.start_from, or its images are shared out otherwise",
        )
