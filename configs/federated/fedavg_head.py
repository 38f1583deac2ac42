"""FedAvg that shares the last layer only (head), to compare with `fedgen_head.py`.

Question: what does averaging achieve without common features?

    python scripts/train.py --config configs/federated/fedavg_head.py
    python scripts/sweep.py --config configs/federated/fedavg_head.py --seeds 0,1,2

Result: 62.9 % on each device's own classes; `fedgen_head.py` has 67.5. Lower, as
expected (`B3` in `papers_repro/fedgen/`).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import federated


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = federated("federated_fedavg_head", "fedavg")
    config.federated.share = "head"
    parse_arg(config, arg)
    return config
