"""Which fields of a config have an effect under its protocol and its partition."""

from collections.abc import Iterable

from ml_collections import ConfigDict

from ecogen_jax import config_federated
from ecogen_jax.config_hops import HOPS, first_tier, section
from ecogen_jax.config_rules import LEARNING

_CYCLE = ("cloud>edge", "edge>end", "end>edge", "edge>cloud")


def without_effect(config: ConfigDict, fields: Iterable[str]) -> list[str]:
    """Picks the fields of sections that nothing reads.

    Args:
      config: a checked config.
      fields: dotted names, such as those that a command line sets.

    Returns:
      Those without effect, in their order.
    """
    idle = _idle(config)
    return [
        field
        for field in fields
        if any(f"{field}.".startswith(f"{name}.") for name in idle)
    ]


def _idle(config: ConfigDict) -> list[str]:
    """The sections, and single fields, that are not read."""
    methods = [
        f"federated.{name}"
        for name in config.federated
        if name in config_federated.METHODS
    ]
    read = _read(config)
    idle = [s for s in (*LEARNING, *HOPS, "federated", *methods) if s not in read]
    if config.data.partition in ("iid", "shards"):
        idle.append("data.alpha")
    if config.data.partition != "shards":
        idle.append("data.shards_per_client")
    return idle


def _read(config: ConfigDict) -> set[str]:
    """The sections of phases, hops and methods that are read."""
    name = config.protocol.name
    if config_federated.is_federated(config):
        hop = {"up_end_cloud"} if name in config_federated.ROUNDS else set()
        return hop | {"federated", f"federated.{name}"}
    if name == "relay_cycle":
        return {*LEARNING, *map(section, _CYCLE)}
    hops = set(map(section, config.protocol.route))
    if config.protocol.start_from:
        return hops
    return hops | {"pretrain" if first_tier(config) == "cloud" else "local"}
