"""Every device trains alone: the lower end of every comparison.

Question: how good is a device without the others?

    python scripts/train.py --config configs/federated/alone.py
    python scripts/sweep.py --config configs/federated/alone.py --seeds 0,1,2

Expected: good on its own classes, poor on the whole test split.
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import federated


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = federated("federated_alone", "alone")
    parse_arg(config, arg)
    return config
