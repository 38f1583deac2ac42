"""The one configuration schema: defaults, config files, overrides and checks.

A config file holds `get_config(arg: str = "")`, which starts from `default()` and only
overrides. `load("configs/quickstart.py:smoke", ["data.alpha=0.1"])` reads it. An error
in it raises one `ConfigError`, before any work is done.
"""

import ast
import importlib.util
import json
import pathlib
import re
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from ecogen_jax import config_federated, config_hops
from ecogen_jax.config_hops import HOPS
from ecogen_jax.config_rules import (
    LEARNING,
    RULES,
    SWITCH,
    ConfigError,
    beside,
    check_domains,
    nearest,
    one_of,
    some_of,
)

__all__ = [
    "HOPS",
    "LEARNING",
    "ConfigError",
    "check",
    "completed",
    "default",
    "from_dict",
    "load",
    "parse_arg",
    "smoke",
    "to_dict",
]


def default() -> ConfigDict:
    """Makes the locked schema with its default values: fields, types and meaning.

    Returns:
      A new `ConfigDict`; assigning an unknown field or another type raises.
    """
    config = ConfigDict(
        {
            "experiment": "relay_cycle",  # names the folder of the runs
            "seed": 0,  # root of every random stream
            "data": _data(),
            "topology": {
                "num_edges": 2,  # edge servers below the one cloud
                "devices_per_edge": 5,  # end devices below each edge
            },
            "nets": {  # the classifier of each tier, and the precision of all
                "cloud": "cnn_large",
                "edge": "cnn_medium",
                "end": "cnn_small",  # of hops also "cnn_medium,mlp": they alternate
                "precision": "f32",  # of products; "bf16" is for GPUs and TPUs
            },
            "protocol": {
                "name": "relay_cycle",  # the stages of one cycle
                "cycles": 2,  # number of cycles: down, local, up
                "route": (),  # for hops: one pass, such as ("cloud>edge", "edge>end")
                "baselines": (),  # for hops: baselines of the first hop
                "start_from": "",  # for hops: a finished run with the first senders
                # For hops: the party that trains continues with the generator that it
                # holds: its own, or a received one that its maker has not trained
                # since (in a relay cycle always).
                "hand_on_generators": False,
            },
            "pretrain": _pretrain(),
            "local": _local(),
            **config_hops.defaults(),
            "federated": config_federated.defaults(),
            "generator": {
                "latent_size": 64,  # length of the noise vector
                "width": 16,  # channels of its last hidden layer
            },
            "mesh": {
                "backend": "auto",  # how clients are mapped; auto: by hardware, work
                "num_devices": 2,  # JAX devices, of all processes
                "chunk": 0,  # clients that a JAX device trains at once; 0: automatic
            },
            "energy": _energy(),
            "run": {"workdir": "runs"},  # run folders go to <workdir>/<experiment>/
        }
    )
    return config.lock()


def _data() -> dict[str, Any]:
    return {
        "name": "mnist",  # a data source
        "folder": "",  # folder with the original files; "" downloads them
        "public_fraction": 0.5,  # share of the training images that the cloud sees
        "public_missing_classes": (),  # classes that the public half lacks
        "validation_fraction": 0.1,  # share of each half kept for validation
        # Split of the private half: "dirichlet" by label, "dirichlet_capped" (at most
        # about twice an equal share each), "iid", "shards" of sorted labels, "quantity"
        # (sizes differ), "domain" (edges differ in dataset).
        "partition": "dirichlet",
        "alpha": 0.3,  # Dirichlet concentration of the private split; small: non-IID
        "shards_per_client": 2,  # for the partition "shards"
        "domains": (),  # for "domain": datasets of the edges, in turn; one is `name`
    }


def _pretrain() -> dict[str, Any]:
    return {  # the cloud's net on the public half
        "rounds": 10,
        "steps": 100,  # per round
        "batch_size": 128,
        "learning_rate": 2e-3,
        "shift": 0,  # largest random shift of an image, in pixels
        "flip": False,  # mirrors half of the images left to right
    }


def _local() -> dict[str, Any]:
    return {  # each end device on its private data
        "rounds": 5,
        "steps": 60,  # per round
        "batch_size": 32,
        "learning_rate": 1e-3,
        "shift": 0,  # largest random shift of a private image, in pixels
        "flip": False,  # mirrors half of them left to right
        "replay_weight": 1.0,  # of the loss on generated images
        "replay_size": 2048,  # images that a device generates to replay
        "scratch_learning_rate": 2e-3,  # of the baseline that trains from scratch
    }


def _energy() -> dict[str, Any]:
    return {
        "cloud_device": "tpu_v3",  # profile that turns FLOPs into joules
        "edge_device": "t4",
        "end_device": "jetson_nano",
        "cloud_edge_link": "fibre",  # profile that turns bytes into joules
        "edge_end_link": "wifi",
        "link_view": "average",  # all energy over all bytes; "marginal": one more byte
        "include_idle": False,  # count parties that wait for another tier
        "cloud_water": "none",  # row of the table of water use per kWh
        "country": "World",  # row of the grid intensity table
        "cloud_contracted_share": 0.0,  # carbon-free energy; market-based only
        "edge_contracted_share": 0.0,
        "end_contracted_share": 0.0,
    }


def smoke(config: ConfigDict) -> None:
    """Shrinks a config in place: generated data, two rounds of two steps everywhere.

    The experiment gets the suffix "_smoke", so that no table mixes it with full runs.

    Args:
      config: any config of the schema.
    """
    config.experiment += "_smoke"
    config.data.update(name="fake", folder="")
    config.topology.num_edges = min(config.topology.num_edges, 2)
    enough = max(2, len(config.nets.end.split(",")))  # keeps every kind of net
    config.topology.devices_per_edge = min(config.topology.devices_per_edge, enough)
    if config.data.domains:
        config.data.domains = ("fake", "digits")[: config.topology.num_edges]
    config.protocol.cycles = min(config.protocol.cycles, 2)
    for stage in LEARNING:
        config[stage].update(rounds=2, steps=2, batch_size=8)
    config_hops.smoke(config)
    config_federated.smoke(config)
    config.local.replay_size = 32
    config.generator.update(latent_size=8, width=4)
    config.mesh.num_devices = min(config.mesh.num_devices, 2)


def parse_arg(config: ConfigDict, arg: str) -> None:
    """Applies the argument that follows the colon of a config's path.

    Args:
      config: changed in place.
      arg: "" for the config as written, "smoke" for its tiny form.

    Raises:
      ConfigError: for any other argument.
    """
    if arg == "smoke":
        smoke(config)
    elif arg:
        allowed = "no argument, or 'smoke'"
        raise ConfigError("argument", arg, allowed, nearest(arg, ["smoke"]))


def check(
    config: ConfigDict, choices: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Checks the fields, types and values of a config.

    Args:
      config: a config that a file or a caller made.
      choices: allowed names by dotted field, for the registries of higher layers,
        such as {"data.name": ("mnist", "fake")}.

    Raises:
      ConfigError: at the first field that is unknown, missing, of another type, has
        an impossible value or contradicts another.
    """
    schema, given = _flat(default()), _flat(config)
    for field, value in given.items():
        _typed(field, value, schema)
    for field in schema:
        if field not in given:
            raise ConfigError(field, None, "a config with every field of default()")
    rules = RULES | config_hops.RULES | config_federated.RULES
    for field, names in (choices or {}).items():
        rules[field] = some_of(names) if field == "nets.end" else one_of(names)
    for field, rule in rules.items():
        if not rule.predicate(given[field]):
            name = nearest(str(given[field]), rule.choices)
            raise ConfigError(field, given[field], rule.allowed, name)
    check_domains(config)
    config_hops.check(config)
    if config_federated.is_federated(config):
        config_federated.check(config)


def load(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Reads a config file, applies overrides and checks the result.

    Args:
      spec: the path of the file, and after a colon its argument:
        "configs/quickstart.py:smoke".
      overrides: "field=value" with a dotted field and a Python literal; text that is
        no literal is a string.

    Returns:
      The locked config. Names of registries are not checked yet: see `check`.

    Raises:
      ConfigError: for a missing file, a wrong argument, field, type or value.
    """
    path, _, argument = spec.partition(":")
    config = _read(path, argument)
    for override in overrides:
        field, equals, text = override.partition("=")
        if not equals:
            raise ConfigError("override", override, "field=value, such as seed=1")
        _assign(config, field, _literal(text, current=_flat(config).get(field)))
    check(config)
    return config.lock()


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """Turns a config into plain values that JSON holds (tuples become lists)."""
    return json.loads(json.dumps(config.to_dict()))


def completed(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The output of `to_dict` of any version; missing fields get their default."""

    def filled(own: Any, known: Any) -> Any:
        if not (isinstance(own, Mapping) and isinstance(known, Mapping)):
            return own
        return {**known, **{name: filled(own[name], known.get(name)) for name in own}}

    whole: dict[str, Any] = filled(tree, to_dict(default()))
    return whole


def from_dict(tree: Mapping[str, Any]) -> ConfigDict:
    """Makes the config back from `to_dict`.

    Args:
      tree: nested values; a field that it lacks keeps its default.

    Returns:
      The checked, locked config.

    Raises:
      ConfigError: for an unknown field, or a wrong type or value.
    """
    config = default()
    for field, value in _flat(tree).items():
        _assign(config, field, value)
    check(config)
    return config


def _read(path: str, argument: str) -> ConfigDict:
    file = pathlib.Path(path)
    if not file.is_file():
        siblings = [str(other) for other in file.parent.glob("*.py")]
        allowed = "the path of a Python file with get_config"
        raise ConfigError("config", path, allowed, nearest(path, siblings))
    spec = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ConfigError("config", path, "a file whose name ends in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        place = f"line {error.lineno} of {error.filename or path}"
        allowed = f"valid Python, which {place} is not: {error.msg}"
        raise ConfigError("config", path, allowed) from error
    if not hasattr(module, "get_config"):
        raise ConfigError("config", path, "a file that defines get_config(arg='')")
    try:
        config = module.get_config(argument)
    except (AttributeError, KeyError, TypeError) as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        raise refusal from error
    if not isinstance(config, ConfigDict):
        raise ConfigError("get_config()", config, "the ConfigDict made by default()")
    return config


def _refusal(error: Exception) -> ConfigError | None:
    """Names the dotted field in a locked dict's error; None for other errors."""
    frames = traceback.extract_tb(error.__traceback__)
    if "ml_collections" not in frames[-1].filename:
        return None
    own = [frame for frame in frames if "ml_collections" not in frame.filename]
    line = own[-1].line or ""
    # The dict has only the last part of the name; the line in the file has the rest.
    message = str(error)
    quoted = re.search(r'instead of "(\w+)"', message) or re.search(
        r"[\"'](\w+)[\"']", message
    )
    name = quoted[1] if quoted else line
    section = re.search(rf"\w\.((?:\w+\.)*)(?:update\(.*?)?{re.escape(name)}\b", line)
    field = (section[1] if section else "") + name
    value = _literal(line.partition("=")[2].strip())
    try:
        _typed(field, value, _flat(default()))
    except ConfigError as refusal:
        return refusal
    return ConfigError(field, value, f"what the schema says ({error})")


def _assign(config: ConfigDict, field: str, value: Any) -> None:
    value = _typed(field, value, _flat(config))
    config.update_from_flattened_dict({field: value})


def _typed(field: str, value: Any, schema: Mapping[str, Any]) -> Any:
    """Returns the value in the type of its field, or refuses field or type."""
    if field not in schema:
        own = [name for name in schema if name.startswith(f"{field}.")]
        if own:
            allowed = "a field of this section: " + ", ".join(own)
            raise ConfigError(field, value, allowed)
        allowed = "the fields and sections " + ", ".join(beside(field, schema))
        raise ConfigError(field, value, allowed, nearest(field, schema))
    wanted = type(schema[field])
    if wanted is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            allowed = "a number that float32 holds, below 3.4e38"
            raise ConfigError(field, "an integer of that length", allowed) from None
    if wanted is tuple and isinstance(value, list):
        return tuple(value)
    if type(value) is not wanted:
        allowed = f"a value of type {wanted.__name__}, such as {schema[field]!r}"
        if wanted is bool:
            allowed = SWITCH.allowed
        raise ConfigError(field, value, allowed)
    return value


def _literal(text: str, current: Any = None) -> Any:
    """Parses a Python literal; text for a string field, or no literal, stays text."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return text if isinstance(current, str) and not isinstance(value, str) else value


def _flat(tree: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Flattens nested sections to dotted fields."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping | ConfigDict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
