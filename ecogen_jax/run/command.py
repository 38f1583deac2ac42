"""The command line that scripts over one config share."""

import argparse

from ml_collections import ConfigDict

from ecogen_jax import config as configs
from ecogen_jax import mesh

PREFIX = "--config."


def read_config(description: str | None) -> ConfigDict:
    """Reads `--config FILE[:ARG]` and its overrides, and sets JAX up for the config.

    Args:
      description: what `--help` prints, the script's docstring.

    Returns:
      The checked config.

    Raises:
      ConfigError: the file, a field or a value is wrong.
      SystemExit: after `--help`, or for an argument that is neither.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]")
    arguments, rest = parser.parse_known_args()
    unknown = [word for word in rest if not word.startswith(PREFIX)]
    if unknown:
        words = " ".join(unknown)
        parser.error(f"unknown: {words}; overrides are {PREFIX}FIELD=VALUE")
    overrides = [word.removeprefix(PREFIX) for word in rest]
    config = configs.load(arguments.config, overrides)
    mesh.start(config.mesh.num_devices)
    return config
