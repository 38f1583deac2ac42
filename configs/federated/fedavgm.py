"""FedAvgM: momentum on the server.

Question: does momentum smooth the rounds, against `fedavg.py`?

    python scripts/train.py --config configs/federated/fedavgm.py
    python scripts/sweep.py --config configs/federated/fedavgm.py --seeds 0,1,2

Result: faster than `fedavg.py` in rounds on MNIST, as expected (`B4.ranking` in
`papers_repro/fedgen/`; the momentum there is 0.7, see `tuned.csv`, and 0.9 here). No
table measures how smooth the rounds are.
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import federated


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = federated("federated_fedavgm", "fedavgm")
    parse_arg(config, arg)
    return config
