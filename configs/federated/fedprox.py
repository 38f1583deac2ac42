"""FedProx: a proximal term keeps devices near the net that they received.

Question: does the proximal term help on non-IID devices, against `fedavg.py`?

    python scripts/train.py --config configs/federated/fedprox.py
    python scripts/sweep.py --config configs/federated/fedprox.py --seeds 0,1,2

Result: 93.4 % on each device's own classes after 200 rounds with the weight 1 of
FedGen's comparison (0.1 here), about as `fedavg.py` (93.5) (`B1` in
`papers_repro/fedgen/`).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import federated


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = federated("federated_fedprox", "fedprox")
    parse_arg(config, arg)
    return config
