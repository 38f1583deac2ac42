"""FedAvg on non-IID devices: the baseline of every other federation.

Question: what accuracy does averaging reach, at what cost in bytes and joules?

    python scripts/train.py --config configs/federated/fedavg.py
    python scripts/sweep.py --config configs/federated/fedavg.py --seeds 0,1,2

Result: 93.5 % on each device's own classes after 200 rounds (`B1` in
`papers_repro/fedgen/`).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import federated


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = federated("federated_fedavg", "fedavg")
    parse_arg(config, arg)
    return config
