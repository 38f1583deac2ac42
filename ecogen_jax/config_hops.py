"""The part of the schema about hops: which there are, and their settings."""

from typing import Any

from ml_collections import ConfigDict

from ecogen_jax.config_federated import is_federated
from ecogen_jax.config_rules import (
    AUGMENTATION,
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    SWITCH,
    TRAINING,
    ConfigError,
    Rule,
    one_of,
    several_of,
)

_ABOVE = ("cloud", "edge", "end")

ROUTE = (
    *("cloud>edge", "edge>end", "cloud>end"),
    *("end>edge", "edge>cloud", "end>cloud"),
)
"""The hops that a route may have, as sender>receiver."""

SUBSTITUTES = ("usps", "fashion_mnist", "mnist", "digits")
"""Datasets whose images may stand in for the public ones in a baseline."""

BASELINES = (
    *("student", "kd", "kd_noise"),
    *(f"kd_{name}" for name in SUBSTITUTES),
)
"""What a route's first hop may be compared with."""


def section(entry: str) -> str:
    """Name of the section that a route's hop has: "cloud>edge" is "down_cloud_edge"."""
    sender, receiver = entry.split(">")
    falls = _ABOVE.index(sender) < _ABOVE.index(receiver)
    return f"{'down' if falls else 'up'}_{sender}_{receiver}"


HOPS = tuple(section(entry) for entry in ROUTE)


def defaults() -> dict[str, Any]:
    """The sections of all hops with their default values: fields, types, meaning."""
    return {
        "down_cloud_edge": _hop(),
        "down_edge_end": _hop(),
        "down_cloud_end": _hop(),
        "up_end_edge": _upward_hop(learning_rate=1e-3),
        "up_edge_cloud": _upward_hop(learning_rate=5e-4),
        "up_end_cloud": _upward_hop(learning_rate=1e-3),
    }


def _hop() -> dict[str, Any]:
    return {
        "distiller": "relay",  # the algorithm of the hop
        "rounds": 8,
        "steps": 40,  # generator steps per round
        "student_steps": 4,  # per generator step
        "batch_size": 128,
        "bank_size": 4096,  # generated images kept for the student
        "bank_policy": "newest",  # what a full bank keeps; or "reservoir" (uniform)
        "learning_rate": 2e-3,  # of the student
        "generator_learning_rate": 2e-2,
        # Decay of the generator's exponential moving average (EMA). The EMA is sent in
        # place of the generator and makes half of a student's fresh images; 0: no EMA.
        "generator_average": 0.0,
        "inner_steps": 1,  # per step, for distillers that optimise each batch
        "batchnorm_momentum": 1.0,  # weight of the newest batch; 1: no history
        "shift": 0,  # largest random shift of a student's images, in pixels
        "flip": False,  # mirrors half of them left to right
        "two_classes": 0.0,  # share of generated images asked for two classes at once
        "temperature": 4.0,  # softens the teacher's and the student's logits
        # How several teachers are combined: weighted by their share of images of the
        # target label ("label_counts"); class by class, with prior-adjusted logits and
        # statistics under each teacher's own label mix ("by_class"); "equal"; or by one
        # weight each, from generated images ("learned"). See `relay/ensemble.py` and
        # `relay/distillers/learned_weights.py`.
        "teacher_weights": "label_counts",
        "weights": {  # of the loss terms; each distiller uses some of them
            "cross_entropy": 1.0,  # the teacher predicts the target label
            "one_hot": 0.0,  # the teacher is certain, of any class
            "batchnorm": 1.0,  # statistics match the teacher's running ones
            "activation": 0.0,  # the teacher's features are large
            "adversarial": 5.0,  # teacher and student disagree
            "balance": 1.0,  # the teacher predicts all classes equally often
            "total_variation": 0.0,  # neighbouring pixels are alike
            "contrastive": 0.0,  # images differ from each other and earlier ones
            "attention": 0.0,  # attention maps of student and teacher match
        },
        "adversarial_mask": "none",  # all images; or "agree", "disagree" only
    }


def _upward_hop(*, learning_rate: float) -> dict[str, Any]:
    hop = _hop() | {"rounds": 5, "temperature": 2.0, "learning_rate": learning_rate}
    # The statistics of teachers weighted by label contradict each other, and a class
    # that only some of them know is found by its cross-entropy alone.
    hop["weights"] |= {"batchnorm": 0.1, "adversarial": 2.0}
    return hop


def smoke(config: ConfigDict) -> None:
    """Shrinks the hops of a config, and what they need from elsewhere, in place."""
    for name in HOPS:
        hop = config[name]
        hop.update(rounds=2, steps=2, batch_size=8, student_steps=1, bank_size=32)
        hop.inner_steps = min(hop.inner_steps, 2)
    # Another dataset or run would have to be downloaded; digits are available.
    kept = ["kd_digits" if _substitute(b) else b for b in config.protocol.baselines]
    config.protocol.update(baselines=tuple(dict.fromkeys(kept)), start_from="")


def _substitute(baseline: str) -> str:
    """The dataset whose images a baseline is taught on, or ""."""
    name = baseline.removeprefix("kd_")
    return name if name in SUBSTITUTES else ""


_HOP_RULES = TRAINING | {
    "generator_learning_rate": POSITIVE,
    "student_steps": COUNT,
    "bank_size": COUNT,
    "bank_policy": one_of(("newest", "reservoir")),
    "generator_average": Rule(
        lambda value: 0 <= value < 1, "a number of 0 or more, and below 1"
    ),
    "inner_steps": COUNT,
    "batchnorm_momentum": Rule(
        lambda value: 0 < value <= 1, "a number above 0, and 1 at most"
    ),
    **AUGMENTATION,
    "two_classes": SHARE,
    "temperature": POSITIVE,
    "teacher_weights": one_of(("label_counts", "by_class", "equal", "learned")),
    "adversarial_mask": one_of(("none", "agree", "disagree")),
    **{f"weights.{name}": NOT_NEGATIVE for name in _hop()["weights"]},
}


RULES: dict[str, Rule] = {
    "protocol.cycles": COUNT,
    "protocol.route": several_of(ROUTE),
    "protocol.baselines": several_of(BASELINES),
    "protocol.hand_on_generators": SWITCH,
} | {f"{hop}.{name}": rule for hop in HOPS for name, rule in _HOP_RULES.items()}


def first_tier(config: ConfigDict) -> str:
    """The tier whose nets are trained on real images before the route begins.

    A route without any hop trains the cloud, or the devices if nothing is public.
    """
    if config.protocol.name == "relay_cycle":
        return "cloud"
    if is_federated(config):
        return "end"
    if config.protocol.route:
        return config.protocol.route[0].partition(">")[0]
    return "cloud" if config.data.public_fraction > 0 else "end"


def devices_train(config: ConfigDict) -> bool:
    """Whether end devices train on their private images."""
    return config.protocol.name == "relay_cycle" or first_tier(config) == "end"


def check(config: ConfigDict) -> None:
    """Checks the fields of the hops and of the protocol against each other.

    Args:
      config: a config whose fields have passed their own rules.

    Raises:
      ConfigError: at the first field that contradicts another.
    """
    for hop in HOPS:
        if config[hop].bank_size < config[hop].batch_size:
            allowed = f"at least {hop}.batch_size = {config[hop].batch_size}"
            raise ConfigError(f"{hop}.bank_size", config[hop].bank_size, allowed)
    kinds, below = config.nets.end.split(","), config.topology.devices_per_edge
    if len(kinds) > below:
        allowed = f"as many kinds of net as devices below an edge at most, {below}"
        raise ConfigError("nets.end", config.nets.end, allowed)
    if config.protocol.name == "hops":
        _check_route(config)
        _check_baselines(config)
    else:
        _check_others(config)
    if config.protocol.name == "relay_cycle":
        _check_relay_cycle(config)


def _check_others(config: ConfigDict) -> None:
    """Refuses, in any other protocol, the fields that only routes have."""
    protocol = config.protocol
    fields = ("route", ()), ("baselines", ()), ("start_from", "")
    for field, empty in (*fields, ("hand_on_generators", False)):
        if protocol[field]:
            allowed = f"only {empty!r} in {protocol.name}; 'hops' has it"
            raise ConfigError(f"protocol.{field}", protocol[field], allowed)


def _check_relay_cycle(config: ConfigDict) -> None:
    if "," in config.nets.end:
        allowed = "only one kind of net in relay_cycle; protocol.name = 'hops' has more"
        raise ConfigError("nets.end", config.nets.end, allowed)
    if not 0 < config.data.public_fraction < 1:
        raise ConfigError(
            "data.public_fraction",
            config.data.public_fraction,
            "a number above 0 and below 1, since cloud and devices both train",
        )


def _check_route(config: ConfigDict) -> None:
    route, first = config.protocol.route, first_tier(config)
    if config.protocol.cycles != 1:
        raise ConfigError("protocol.cycles", config.protocol.cycles, "1: one pass")
    if config.protocol.start_from and not route:
        allowed = "'' where protocol.route has no hop: nothing would be left to do"
        raise ConfigError("protocol.start_from", config.protocol.start_from, allowed)
    if first == "edge":
        allowed = "a route that starts at the cloud or the end, which have images"
        raise ConfigError("protocol.route", route, allowed)
    trained = {first}
    for entry in route:
        sender, receiver = entry.split(">")
        if sender not in trained:
            allowed = f"a route that teaches the {sender} before {entry!r}"
            raise ConfigError("protocol.route", route, allowed)
        if receiver == "end" and "," in config.nets.end:
            allowed = f"one kind of net, since {entry!r} sends all devices the same"
            raise ConfigError("nets.end", config.nets.end, allowed)
        trained.add(receiver)
    half, empty = ("public", 0) if first == "cloud" else ("private", 1)
    if config.data.public_fraction == empty:
        allowed = f"one that leaves {half} images, which the {first} trains on"
        raise ConfigError("data.public_fraction", config.data.public_fraction, allowed)


def _check_baselines(config: ConfigDict) -> None:
    baselines, route = config.protocol.baselines, config.protocol.route
    if baselines and not (route and route[0].startswith("cloud>")):
        allowed = "() unless protocol.route starts at the cloud, whose images they need"
        raise ConfigError("protocol.baselines", baselines, allowed)
    for baseline in baselines:
        if _substitute(baseline) == config.data.name:
            allowed = f"'kd' for images of {config.data.name} itself"
            raise ConfigError("protocol.baselines", baselines, allowed, nearest="kd")
