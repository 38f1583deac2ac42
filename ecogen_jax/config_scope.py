"""Which fields of a config have no effect, because of the values of others."""

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

from ml_collections import ConfigDict

from ecogen_jax import config_federated
from ecogen_jax.config_hops import HOPS, first_tier, section
from ecogen_jax.config_rules import AUGMENTATION, LEARNING

_CYCLE = ("cloud>edge", "edge>end", "end>edge", "edge>cloud")
_REPLAY = ("local.learning_rate", "local.replay_weight", "local.replay_size")
_LOCAL_TRAINING = (
    *("local.rounds", "local.steps", "local.scratch_learning_rate"),
    *(f"local.{field}" for field in AUGMENTATION),
)
_WITH_GENERATOR = ("fedftg", *config_federated.ROUNDS)


_OPTIMISED = ("deep_inversion", "cmi", "fast", "nayer", "dense", "co_boosting")
"""Distillers that optimise a batch in `inner_steps` before it is used."""

_WITHOUT_TEMPERATURE = ("dfad", "pre_dfkd")
"""Those whose student learns logits as they are."""

_WITHOUT_GENERATOR = ("deep_inversion",)


def without_effect(config: ConfigDict, fields: Iterable[str]) -> dict[str, str]:
    """Finds the fields that nothing reads, and the cause.

    Args:
      config: a checked config.
      fields: dotted names, such as those that a command line sets.

    Returns:
      For each field without effect, the field that causes it, with its value, such as
      "protocol.name = 'fedavg'".
    """
    idle = _idle(config)
    return {
        field: f"{idle[name]} = {attrgetter(idle[name])(config)!r}"
        for field in fields
        for name in idle
        if f"{field}.".startswith(f"{name}.")
    }


def effective(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the fields that nothing reads: what its run depends on.

    Args:
      tree: the nested values of a checked config, with all fields.

    Returns:
      The same without those sections and fields.
    """
    idle = _idle(ConfigDict(tree))

    def kept(value: Any, above: str) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {
            name: kept(inner, f"{above}{name}.")
            for name, inner in value.items()
            if f"{above}{name}" not in idle
        }

    left: dict[str, Any] = kept(tree, "")
    return left


def _idle(config: ConfigDict) -> dict[str, str]:
    """Maps sections and fields that are not read to the field that causes it."""
    if config_federated.is_federated(config):
        idle = _idle_in_federation(config)
    elif config.protocol.name == "hops":
        idle = _idle_in_route(config)
    else:
        idle = dict.fromkeys(_not_in(_CYCLE), "protocol.name")
    if not config_federated.is_federated(config):
        idle["federated"] = "protocol.name"
    idle |= {
        f"{hop}.inner_steps": f"{hop}.distiller"
        for hop in HOPS
        if hop not in idle and config[hop].distiller not in _OPTIMISED
    }
    idle |= {
        f"{hop}.adversarial_mask": f"{hop}.weights.adversarial"
        for hop in HOPS
        if hop not in idle and not config[hop].weights.adversarial
    }
    if config.data.name == "fake":
        idle["data.folder"] = "data.name"
    if config.mesh.backend in ("loop", "scan"):
        idle["mesh.chunk"] = "mesh.backend"
    if config.protocol.start_from:  # which requires the same data in both runs
        return idle
    if config.data.public_fraction == 0:
        idle["data.public_missing_classes"] = "data.public_fraction"
    partition = config.data.partition
    shares = ("data.alpha", "data.shards_per_client")
    if config.data.public_fraction == 1:
        return idle | dict.fromkeys(shares, "data.public_fraction")
    if partition in ("iid", "shards"):
        idle["data.alpha"] = "data.partition"
    if partition != "shards":
        idle["data.shards_per_client"] = "data.partition"
    return idle


def _not_in(route: Iterable[str]) -> list[str]:
    taken = set(map(section, route))
    return [hop for hop in HOPS if hop not in taken]


def _idle_in_federation(config: ConfigDict) -> dict[str, str]:
    name, federated = config.protocol.name, config.federated
    hops = _not_in(("end>cloud",) if name in config_federated.ROUNDS else ())
    methods = [
        f"federated.{other}"
        for other in federated
        if other in config_federated.METHODS and other != name
    ]
    idle = dict.fromkeys([*LEARNING, *hops, *methods], "protocol.name")
    if name not in _WITH_GENERATOR:
        idle["generator"] = "protocol.name"
    if name in config_federated.NO_UPDATES:
        idle["federated.statistics"] = "protocol.name"
    elif federated.share == "head":
        idle["federated.statistics"] = "federated.share"
    if not federated.privacy.clip:
        idle["federated.privacy.noise_multiplier"] = "federated.privacy.clip"
        idle["federated.privacy.delta"] = "federated.privacy.clip"
    if federated.compression != "topk":
        idle["federated.keep"] = "federated.compression"
    if not federated.faults.straggler:
        idle["federated.faults.straggler_share"] = "federated.faults.straggler"
    return idle


def _idle_in_route(config: ConfigDict) -> dict[str, str]:
    idle = dict.fromkeys(_not_in(config.protocol.route), "protocol.route")
    hops = [section(entry) for entry in config.protocol.route]
    if not hops:
        idle["generator"] = "protocol.route"
    elif all(config[hop].distiller in _WITHOUT_GENERATOR for hop in hops):
        idle["generator"] = f"{hops[0]}.distiller"
    idle |= {
        f"{hop}.temperature": f"{hop}.distiller"
        for hop in hops
        if config[hop].distiller in _WITHOUT_TEMPERATURE
        and not config.protocol.baselines
    }
    if first_tier(config) == "cloud":
        idle["local"] = "protocol.route"
    else:  # devices train from scratch; `local.batch_size` is their fewest images
        idle |= dict.fromkeys(_REPLAY, "protocol.name")
        idle["pretrain"] = "protocol.route"
    if config.protocol.start_from:
        idle |= dict.fromkeys(("pretrain", *_LOCAL_TRAINING), "protocol.start_from")
    return idle
