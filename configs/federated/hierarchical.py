"""Hierarchical FedAvg: edges average often, the cloud rarely.

Question: what does the saved traffic at the cloud cost in accuracy, against
`fedavg.py`?

    python scripts/train.py --config configs/federated/hierarchical.py
    python scripts/sweep.py --config configs/federated/hierarchical.py --seeds 0,1,2

Expected: a fifth of the visits to the cloud.
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import federated


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = federated("federated_hierarchical", "hierarchical")
    parse_arg(config, arg)
    return config
