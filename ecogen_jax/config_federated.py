"""The part of the schema about federated rounds."""

import math
from typing import Any

from ml_collections import ConfigDict

from ecogen_jax.config_rules import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    ConfigError,
    Rule,
    one_of,
)

METHODS = (
    *("alone", "fedavg", "fedprox", "scaffold", "fedavgm", "fedadam"),
    *("hierarchical", "feddistill", "fedgen", "feddf", "fedftg"),
    *("dense_rounds", "co_boosting_rounds", "relay_rounds"),
)
"""Protocols that are federations: devices train, and a server merges."""

ROUNDS = {
    "dense_rounds": "dense",
    "co_boosting_rounds": "co_boosting",
}
"""Those of them that take the hop of `up_end_cloud` in each round -> its distiller."""

PRIVATE = ("fedavg", "fedprox", "fedavgm", "fedadam")
"""Those of them that send one update and nothing else."""

NO_UPDATES = ("alone", "feddistill")
"""Those of them that send no change of a net."""

UPDATES = {"share": "all", "aggregator": "mean", "compression": "none"}
"""What says how changes are sent and merged, and what leaves them as they are."""

COMPRESSIONS = ("none", "bf16", "int8", "topk")
AGGREGATORS = ("mean", "median", "trimmed_mean")


def defaults() -> dict[str, Any]:
    """The section with its default values: fields, types, meaning."""
    return {
        "rounds": 50,
        "active": 10,  # devices sampled per round
        "steps": 20,  # SGD steps of a device per round
        "batch_size": 32,
        "learning_rate": 0.01,
        "decay": 0.99,  # of the learning rate, per round
        "momentum": 0.0,  # of SGD, reset in each round
        "share": "all",  # layers that are sent; "head": the last layer only
        # Of BatchNorm. "own": sent up, never down; "local": never sent.
        "statistics": "average",
        "aggregator": "mean",  # "median", "trimmed_mean": robust to Byzantine updates
        "compression": "none",  # of the devices' updates: "bf16", "int8", "topk"
        "keep": 0.1,  # share of values that "topk" sends
        "evaluate_every": 5,  # rounds; also the interval of checkpoints
        "faults": {  # probabilities per sampled device and round
            "drop": 0.0,  # sends nothing
            "nan": 0.0,  # sends numbers that are not finite
            "stale": 0.0,  # sends the message of another round
            "shape": 0.0,  # sends a message of another size
            "straggler": 0.0,  # does only a share of its steps
            "straggler_share": 0.5,  # this share
            "flip": 0.0,  # share of devices with flipped labels, in all rounds
        },
        "privacy": {  # client-level differential privacy
            "clip": 0.0,  # clipping norm C of an update; 0: no privacy
            "noise_multiplier": 1.0,  # z: deviation z C / m in the mean of m devices
            "delta": 1e-5,  # of the reported (epsilon, delta)
        },
        **_methods(),
    }


def _methods() -> dict[str, Any]:
    """The sections of the methods that have fields of their own."""
    return {
        "fedprox": {"weight": 0.1},  # of the proximal term
        "fedavgm": {"learning_rate": 1.0, "momentum": 0.9},  # of the server
        "fedadam": {  # of the server
            "learning_rate": 0.01,
            "b1": 0.9,
            "b2": 0.99,
            "tau": 1e-3,  # added to the root of the second moment
        },
        "hierarchical": {"period": 5},  # rounds between two averages at the cloud
        "feddistill": {"weight": 0.1},  # of the divergence from the mean logits
        "fedgen": _generator(),
        "relay_rounds": {
            **_generator(),
            # Factor of the devices' mean change.
            "server_learning_rate": 1.0,
            "ema": 0.7,  # decay of the EMA net that devices use
            "hop_steps": 50,  # of the server's last layer per round
            "hop_batch_size": 64,
            "hop_learning_rate": 1e-3,  # cosine schedule in each round
        },
        "feddf": {  # not data-free: uses the public images, without labels
            "steps": 50,  # of the student per round
            "batch_size": 64,
            "learning_rate": 1e-3,  # cosine schedule in each round
        },
        "fedftg": {
            "steps": 10,  # of the generator per round
            "student_steps": 5,  # per generator step, on the same images
            "batch_size": 50,
            "learning_rate": 1e-3,  # of the student; cosine schedule in each round
            "generator_learning_rate": 0.01,
            "cross_entropy": 1.0,  # weight: the devices predict the target label
            "diversity": 1.0,  # weight: different noise gives different images
        },
    }


def _generator() -> dict[str, Any]:
    """The feature generator, and its use on devices."""
    return {
        "noise_size": 32,
        "steps": 50,  # of the generator per round
        "batch_size": 32,  # generated features per step, on server and devices
        "learning_rate": 3e-4,  # of the generator
        "weight_decay": 0.01,  # of the generator
        "weight": 10.0,  # of both generator terms of the devices' loss
        "decay": 0.98,  # of `weight` and `learning_rate`, per round
    }


def smoke(config: ConfigDict) -> None:
    """Shrinks the federation of a config in place."""
    config.federated.update(rounds=2, steps=2, batch_size=8, evaluate_every=1)
    config.federated.active = min(config.federated.active, 2)
    config.federated.hierarchical.period = 1
    config.federated.fedgen.update(steps=2, batch_size=8)
    config.federated.relay_rounds.update(steps=2, batch_size=8, hop_steps=2)
    config.federated.feddf.update(steps=2, batch_size=8)
    config.federated.fedftg.update(steps=2, student_steps=2, batch_size=8)


_CHANCE = Rule(lambda value: 0 <= value <= 1, "a number from 0 to 1")
_SHARE = Rule(lambda value: 0 < value <= 1, "a number above 0, and 1 at most")
_MOMENTUM = Rule(lambda value: 0 <= value < 1, "a number of 0 or more, below 1")

_GENERATOR = {
    "noise_size": COUNT,
    "steps": COUNT,
    "batch_size": COUNT,
    "learning_rate": POSITIVE,
    "weight_decay": NOT_NEGATIVE,
    "weight": NOT_NEGATIVE,
    "decay": _SHARE,
}

_RULES = {
    "rounds": COUNT,
    "active": COUNT,
    "steps": COUNT,
    "batch_size": COUNT,
    "learning_rate": POSITIVE,
    "decay": _SHARE,
    "momentum": _MOMENTUM,
    "share": one_of(("all", "head")),
    "statistics": one_of(("average", "own", "local")),
    "aggregator": one_of(AGGREGATORS),
    "compression": one_of(COMPRESSIONS),
    "keep": _SHARE,
    "evaluate_every": COUNT,
    **dict.fromkeys(
        [f"faults.{n}" for n in ("drop", "nan", "stale", "shape", "straggler", "flip")],
        _CHANCE,
    ),
    "faults.straggler_share": _SHARE,
    "privacy.clip": NOT_NEGATIVE,
    "privacy.noise_multiplier": Rule(
        lambda value: 1e-3 <= value < math.inf, "0.001 or more: less is no privacy"
    ),
    "privacy.delta": Rule(lambda value: 0 < value < 1, "a number between 0 and 1"),
    "fedprox.weight": NOT_NEGATIVE,
    "fedavgm.learning_rate": POSITIVE,
    "fedavgm.momentum": _MOMENTUM,
    "fedadam.learning_rate": POSITIVE,
    "fedadam.b1": _MOMENTUM,
    "fedadam.b2": _MOMENTUM,
    "fedadam.tau": POSITIVE,
    "hierarchical.period": COUNT,
    "feddistill.weight": NOT_NEGATIVE,
    "feddf.steps": COUNT,
    "feddf.batch_size": COUNT,
    "feddf.learning_rate": POSITIVE,
    "fedftg.steps": COUNT,
    "fedftg.student_steps": COUNT,
    "fedftg.batch_size": COUNT,
    "fedftg.learning_rate": POSITIVE,
    "fedftg.generator_learning_rate": POSITIVE,
    "fedftg.cross_entropy": NOT_NEGATIVE,
    "fedftg.diversity": NOT_NEGATIVE,
    **{f"fedgen.{name}": rule for name, rule in _GENERATOR.items()},
    **{f"relay_rounds.{name}": rule for name, rule in _GENERATOR.items()},
    "relay_rounds.server_learning_rate": POSITIVE,
    "relay_rounds.ema": _MOMENTUM,
    "relay_rounds.hop_steps": COUNT,
    "relay_rounds.hop_batch_size": COUNT,
    "relay_rounds.hop_learning_rate": POSITIVE,
}
RULES: dict[str, Rule] = {f"federated.{name}": rule for name, rule in _RULES.items()}


def is_federated(config: ConfigDict) -> bool:
    """Whether the protocol is a federation."""
    return config.protocol.name in METHODS


def has_cloud_net(config: ConfigDict) -> bool:
    """Whether a federation teaches the net of its cloud: the method's `has_cloud_net`.

    It has none if no changes of nets are sent, or only those of the last layer.
    """
    return config.protocol.name not in NO_UPDATES and config.federated.share == "all"


def check(config: ConfigDict) -> None:
    """Checks the fields of a federation against each other and against other fields.

    Args:
      config: a config whose fields have passed their own rules.

    Raises:
      ConfigError: at the first field that contradicts another.
    """
    name, federated = config.protocol.name, config.federated
    devices = config.topology.num_edges * config.topology.devices_per_edge
    if federated.active > devices:
        allowed = f"at most the number of devices, {devices}"
        raise ConfigError("federated.active", federated.active, allowed)
    _check_nets(config)
    if config.protocol.cycles != 1:
        allowed = "1; federated.rounds says how often devices and server meet"
        raise ConfigError("protocol.cycles", config.protocol.cycles, allowed)
    data = config.data
    if data.public_fraction == 1:
        allowed = f"below 1 in {name}, whose devices train on the private half"
        raise ConfigError("data.public_fraction", data.public_fraction, allowed)
    if name == "scaffold" and federated.momentum:
        allowed = "0 in scaffold, whose control variates assume plain SGD"
        raise ConfigError("federated.momentum", federated.momentum, allowed)
    if name == "hierarchical" and federated.hierarchical.period > federated.rounds:
        allowed = f"federated.rounds at most, {federated.rounds}: else no edge reports"
        period = federated.hierarchical.period
        raise ConfigError("federated.hierarchical.period", period, allowed)
    _check_updates(config)
    _check_server(config)
    _check_faults(config)
    _check_privacy(config)


def _check_nets(config: ConfigDict) -> None:
    """A federation has one net."""
    name = config.protocol.name
    if "," in config.nets.end:
        allowed = f"one net in {name}, for all devices"
        raise ConfigError("nets.end", config.nets.end, allowed)
    for tier in ("cloud", "edge"):
        if config.nets[tier] != config.nets.end:
            allowed = f"{config.nets.end!r} in {name}, which has one net: see nets.end"
            raise ConfigError(f"nets.{tier}", config.nets[tier], allowed)


def _check_server(config: ConfigDict) -> None:
    """Checks the needs of a server that distils the nets of its devices."""
    name, hop = config.protocol.name, config.up_end_cloud
    if name == "relay_rounds" and config.federated.aggregator != "mean":
        allowed = f"'mean' in {name}, whose changes of several rounds are averaged"
        raise ConfigError("federated.aggregator", config.federated.aggregator, allowed)
    if name not in ("feddf", "fedftg", *ROUNDS):
        return
    if config.federated.share != "all":
        allowed = f"'all' in {name}, whose server asks the whole nets of the devices"
        raise ConfigError("federated.share", config.federated.share, allowed)
    if name == "feddf" and not config.data.public_fraction:
        allowed = "a number above 0 in feddf, whose server needs public images"
        raise ConfigError("data.public_fraction", 0.0, allowed)
    if name in ROUNDS and hop.distiller != ROUNDS[name]:
        allowed = f"{ROUNDS[name]!r} in {name}"
        raise ConfigError("up_end_cloud.distiller", hop.distiller, allowed)


def _check_updates(config: ConfigDict) -> None:
    """Refuses settings that the method's messages do not allow."""
    name = config.protocol.name
    for field, wanted in UPDATES.items():
        if name in NO_UPDATES and config.federated[field] != wanted:
            allowed = f"{wanted!r} in {name}, which sends no change of a net"
            raise ConfigError(f"federated.{field}", config.federated[field], allowed)
    if config.federated.statistics == "local" and name not in PRIVATE:
        allowed = f"'average' or 'own' in {name}; 'local' only in {', '.join(PRIVATE)}"
        raise ConfigError("federated.statistics", "local", allowed)


def _check_faults(config: ConfigDict) -> None:
    faults = config.federated.faults
    kinds = ("drop", "nan", "stale", "shape")
    total = sum(faults[kind] for kind in kinds)
    if total and config.protocol.name == "alone":
        allowed = f"0 for {', '.join(kinds)} in alone, where no message is sent"
        raise ConfigError("federated.faults", total, allowed)
    if total > 1.0 + 1e-9:  # some rates that add up to 1 are a little more as floats
        allowed = f"at most 1 for the sum of {', '.join(kinds)}: one of them happens"
        raise ConfigError("federated.faults", total, allowed)


def _check_privacy(config: ConfigDict) -> None:
    """Refuses privacy if more than the noisy mean depends on a device."""
    clip, name = config.federated.privacy.clip, config.protocol.name
    if not clip:
        return
    if name not in PRIVATE:
        allowed = (
            f"0 in {name}; only in {', '.join(PRIVATE)} is all that a device sends "
            "clipped, and noised once it is averaged"
        )
        raise ConfigError("federated.privacy.clip", clip, allowed)
    for field, wanted, reason in (
        ("aggregator", "mean", "whose noise is sized for that"),
        ("statistics", "local", "whose noise would spoil variances"),
    ):
        if config.federated[field] != wanted:
            allowed = f"{wanted!r} with privacy, {reason}"
            raise ConfigError(f"federated.{field}", config.federated[field], allowed)
