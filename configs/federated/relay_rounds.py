"""Our data-free hop in a federation: from the devices' ensemble to their average.

Question: what does the hop add to `fedavg.py` at the same bytes?

    python scripts/train.py --config configs/federated/relay_rounds.py
    python scripts/sweep.py --config configs/federated/relay_rounds.py --seeds 0,1,2

Expected: above `fedavg.py` and `dense.py`.
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import federated


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = federated("federated_relay_rounds", "relay_rounds")
    parse_arg(config, arg)
    return config
