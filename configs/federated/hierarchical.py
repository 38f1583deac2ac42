"""Hierarchical FedAvg: edges average often, the cloud rarely.

Question: what does the saved traffic to the cloud cost in accuracy, against
`fedavg.py`?

    python scripts/train.py --config configs/federated/hierarchical.py
    python scripts/sweep.py --config configs/federated/hierarchical.py --seeds 0,1,2

Result: 89.2 % after 60 rounds on MNIST, where `fedavg.py` has 89.4, and 40.1 against
51.5 after 6 (`B4.ranking` in `papers_repro/fedgen/`, alpha 0.1), with 14.5 against 17.4
kJ of training after 60 (`B5`, modelled). Edges report to the cloud in every fifth
round.
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import federated


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = federated("federated_hierarchical", "hierarchical")
    parse_arg(config, arg)
    return config
