"""Every device trains alone: the lower reference of every comparison.

Question: how good is a device without the others?

    python scripts/train.py --config configs/federated/alone.py
    python scripts/sweep.py --config configs/federated/alone.py --seeds 0,1,2

Result: 55.4 % on each device's own classes and 27.8 % on the whole test split after 60
rounds on MNIST, below every federation at FedAvg's bytes (`B4.ranking` in
`papers_repro/fedgen/`, alpha 0.1). Expected: good accuracy on its own classes.
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import federated


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = federated("federated_alone", "alone")
    parse_arg(config, arg)
    return config
