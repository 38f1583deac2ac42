"""FedDistill: devices share mean logits by class.

Question: what do a hundred numbers a round give, against `alone.py`?

    python scripts/train.py --config configs/federated/feddistill.py
    python scripts/sweep.py --config configs/federated/feddistill.py --seeds 0,1,2

Expected: little above training alone.
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import federated


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = federated("federated_feddistill", "feddistill")
    parse_arg(config, arg)
    return config
