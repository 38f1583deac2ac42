"""The command line of scripts that run one config, and flags that others have too."""

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Iterable, Iterator

import jax
from ml_collections import ConfigDict

from ecogen_jax import config as configs
from ecogen_jax import distributed, mesh
from ecogen_jax.config_scope import without_effect

PREFIX = "--config."
BACKENDS = ("auto", "shard_map")
"""Backends that know the devices of other processes."""

STOPPED, STOPPED_STATUS = "stopped; the same command goes on where it was", 130
"""What is said after Ctrl-C, and the exit status that shells give to it."""


def read_config(description: str | None) -> ConfigDict:
    """Reads `--config FILE[:ARG]` and its overrides, and sets JAX up for the config.

    A warning on stderr names each override without effect, such as a setting of another
    method.

    Args:
      description: what `--help` prints, the script's docstring.

    Returns:
      The checked config.

    Raises:
      ConfigError: the file, a field or a value is wrong.
      SystemExit: after `--help`, or for an argument that is neither.
    """
    config, _ = _read(_parser(description))
    mesh.start(config.mesh.num_devices)
    return config


def join_and_read_config(description: str | None) -> ConfigDict:
    """As `read_config`, with flags that join several processes in one run.

    Raises:
      ConfigError: also where the config does not suit the number of processes.
      JoinError: the processes did not find each other, or differ in their configs or in
        their numbers of JAX devices.
      SystemExit: as `read_config`.
    """
    parser = _parser(description)
    group = parser.add_argument_group("several processes, see docs/scaling.md")
    group.add_argument(
        "--distributed",
        action="store_true",
        help="join the processes that Slurm, Open MPI or Kubernetes started",
    )
    group.add_argument("--coordinator_address", metavar="HOST:PORT")
    group.add_argument("--num_processes", type=int, metavar="N")
    group.add_argument("--process_id", type=int, metavar="I")
    config, flags = _read(parser)
    given = (flags.coordinator_address, flags.num_processes, flags.process_id)
    if not flags.distributed and given == (None, None, None):
        mesh.start(config.mesh.num_devices)
        return config
    distributed.start(*given)
    mesh.start(config.mesh.num_devices)
    distributed.check_devices()
    _check_suits(config, jax.process_count())
    own = json.dumps(configs.to_dict(config))
    distributed.check_everywhere(
        distributed.text_from_main(own) == own,
        "the configs differ from that of process 0: start all processes with the same",
    )
    return config


@contextlib.contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Lets a SIGTERM end what is under way, with the runs that it started."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def positive(text: str) -> int:
    """The argparse `type` of a flag whose value is a count.

    Args:
      text: the value on the command line.

    Returns:
      The number.

    Raises:
      ArgumentTypeError: it is not a whole number of 1 or more.
    """
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is refused; allowed: a whole number of 1 or more"
        )
    return int(text)


def warning_lines(config: ConfigDict, overrides: Iterable[str]) -> list[str]:
    """Names the overrides that change nothing, with the cause, a line each."""
    fields = [override.partition("=")[0] for override in overrides]
    found = without_effect(config, fields).items()
    return [f"warning: {field} has no effect with {cause}" for field, cause in found]


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]")
    return parser


def _read(parser: argparse.ArgumentParser) -> tuple[ConfigDict, argparse.Namespace]:
    arguments, rest = parser.parse_known_args()
    unknown = [word for word in rest if not word.startswith(PREFIX)]
    if unknown:
        words = " ".join(unknown)
        parser.error(f"unknown: {words}; overrides are {PREFIX}FIELD=VALUE")
    overrides = [word.removeprefix(PREFIX) for word in rest]
    config = configs.load(arguments.config, overrides)
    for line in warning_lines(config, overrides):
        print(line, file=sys.stderr)
    return config, arguments


def _check_suits(config: ConfigDict, num_processes: int) -> None:
    section = config.mesh
    if section.num_devices < num_processes:
        allowed = f"{num_processes} or more, one for each process"
        raise configs.ConfigError("mesh.num_devices", section.num_devices, allowed)
    if num_processes > 1 and section.backend not in BACKENDS:
        allowed = f"{' or '.join(BACKENDS)}, over several processes"
        raise configs.ConfigError("mesh.backend", section.backend, allowed)
