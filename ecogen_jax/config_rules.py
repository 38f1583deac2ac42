"""The allowed values of a config, as one table, and the error for all others."""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

LEARNING = ("pretrain", "local")

PARTITIONS = (
    *("dirichlet", "dirichlet_capped", "iid", "shards", "quantity", "domain"),
)
"""How devices may share the private half."""

DOMAINS = ("mnist", "usps", "digits", "fashion_mnist", "fake")
"""Datasets that edges may differ in: grey images, which can take another's shape."""


class ConfigError(ValueError):
    """A field, or a value of one, that the schema does not allow.

    Attributes:
      field: the dotted name, such as "data.alpha".
      value: the given value.
      allowed: what would be accepted, in words.
      nearest: the closest allowed name, or "".
    """

    def __init__(self, field: str, value: object, allowed: str, nearest: str = ""):
        """Builds the message from the parts, which stay readable as attributes."""
        self.field, self.value = field, value
        self.allowed, self.nearest = allowed, nearest
        hint = f" Did you mean {nearest!r}?" if nearest else ""
        super().__init__(
            f"{field} = {value!r} is refused; allowed: {allowed}.{hint} "
            "Correct it in the config file or on the command line."
        )


def beside(field: str, names: Iterable[str]) -> list[str]:
    """Returns what there is in the section of a field, or at the top if it has none.

    Args:
      field: the dotted name.
      names: of all fields. A section within the section stands for its fields.
    """
    section, dot, _ = field.rpartition(".")
    found = [name for name in names if name.startswith(section + dot)]
    if not found:
        return beside("", names)
    level = section.count(".") + (2 if dot else 1)
    return sorted({".".join(name.split(".")[:level]) for name in found})


def nearest(word: str, names: Iterable[str]) -> str:
    """Returns the name most like a word, or "" where none is alike."""
    return next(iter(difflib.get_close_matches(word, list(names), n=1, cutoff=0.5)), "")


class Rule(NamedTuple):
    """Which values of a field are possible.

    Attributes:
      predicate: true for a possible value.
      allowed: the same in words.
      choices: the possible names, where the value is a name.
    """

    predicate: Callable[[Any], bool]
    allowed: str
    choices: tuple[str, ...] = ()


def one_of(names: Sequence[str]) -> Rule:
    """Makes the rule of a field whose value is one of some names."""
    return Rule(lambda value: value in names, "one of " + ", ".join(names), (*names,))


def some_of(names: Sequence[str]) -> Rule:
    """Makes the rule of a field with one or several different names, and commas."""

    def predicate(value: str) -> bool:
        given = value.split(",")
        return set(given) <= set(names) and len(set(given)) == len(given)

    allowed = "one, or several with commas between, of " + ", ".join(names)
    return Rule(predicate, allowed, (*names,))


def several_of(names: Sequence[str]) -> Rule:
    """Makes the rule of a field with a tuple of some names, maybe empty."""
    return Rule(
        lambda value: (
            all(item in names for item in value) and len(set(value)) == len(value)
        ),
        "a tuple of different ones of " + ", ".join(names),
        (*names,),
    )


COUNT = Rule(lambda value: value >= 1, "an integer of 1 or more")
_LEAST, _MOST = 1.2e-38, 3.4e38
"""Of normal numbers in float32: below it, a number is 0, above it, infinite."""
POSITIVE = Rule(lambda value: _LEAST < value < _MOST, "a number above 0, in float32")
AMOUNT = Rule(lambda value: value >= 0, "an integer of 0 or more")
SWITCH = Rule(lambda value: True, "True or False")
NOT_NEGATIVE = Rule(
    lambda value: value == 0 or _LEAST < value < _MOST,
    "a number of 0 or more, in float32",
)
_INSIDE = Rule(lambda value: 0 < value < 1, "a number above 0 and below 1")
SHARE = Rule(lambda value: 0 <= value <= 1, "a number from 0 to 1")
_CLASSES = Rule(
    lambda value: (
        all(type(item) is int and item >= 0 for item in value)
        and len(set(value)) == len(value)
    ),
    "different class indices of 0 or more, such as (8, 9)",
)
TRAINING = {
    "rounds": COUNT,
    "steps": COUNT,
    "batch_size": COUNT,
    "learning_rate": POSITIVE,
}
AUGMENTATION = {
    "shift": AMOUNT,
    "flip": SWITCH,
}

RULES: dict[str, Rule] = {
    "experiment": Rule(
        lambda value: re.fullmatch(r"\w[\w.-]{0,149}", value) is not None,
        "a folder name of at most 150 letters, digits, '_', '-' and '.'",
    ),
    "seed": Rule(lambda value: 0 <= value < 2**32, "an integer in [0, 2**32)"),
    "data.public_fraction": SHARE,
    "data.public_missing_classes": _CLASSES,
    "data.validation_fraction": _INSIDE,
    "data.partition": one_of(PARTITIONS),
    "data.alpha": POSITIVE,
    "data.shards_per_client": COUNT,
    "data.domains": several_of(DOMAINS),
    "topology.num_edges": COUNT,
    "topology.devices_per_edge": COUNT,
    "local.replay_weight": NOT_NEGATIVE,
    "local.replay_size": COUNT,
    "local.scratch_learning_rate": POSITIVE,
    "generator.latent_size": COUNT,
    "generator.width": Rule(
        lambda value: value >= 4 and value % 4 == 0, "a multiple of 4"
    ),
    "mesh.backend": one_of(("auto", "loop", "scan", "vmap", "shard_map", "pmap")),
    "mesh.num_devices": COUNT,
    "mesh.chunk": AMOUNT,
    "energy.link_view": one_of(("average", "marginal")),
    "energy.include_idle": SWITCH,
    "energy.cloud_contracted_share": SHARE,
    "energy.edge_contracted_share": SHARE,
    "energy.end_contracted_share": SHARE,
    "run.workdir": Rule(
        lambda value: value != "" and "\0" not in value, "the path of a folder"
    ),
} | {
    f"{section}.{name}": rule
    for section in LEARNING
    for name, rule in (TRAINING | AUGMENTATION).items()
}


def check_domains(config: ConfigDict) -> None:
    """Checks that the datasets of the edges fit the partition, dataset and topology.

    Args:
      config: a config whose fields have passed their own rules.

    Raises:
      ConfigError: for domains without their partition, or the reverse; where the
        dataset is not among them; where there are more of them than edges.
    """
    data, edges = config.data, config.topology.num_edges
    domains = data.domains
    if data.partition != "domain":
        if domains:
            allowed = "() unless data.partition = 'domain'"
            raise ConfigError("data.domains", domains, allowed)
        return
    if data.name not in domains:
        allowed = f"several datasets, of which data.name = {data.name!r} is one"
        raise ConfigError("data.domains", domains, allowed)
    if len(domains) > edges:
        allowed = f"one dataset an edge at most, as topology.num_edges = {edges}"
        raise ConfigError("data.domains", domains, allowed)
