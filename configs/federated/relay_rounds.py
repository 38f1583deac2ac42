"""Our relay in a federation: a generator of features carries knowledge both ways.

Question: what is gained over `fedgen.py` by what the server does with the same bytes?

    python scripts/train.py --config configs/federated/relay_rounds.py
    python scripts/sweep.py --config configs/federated/relay_rounds.py --seeds 0,1,2

Expected: above `fedgen.py`, and less dependent on who was sampled last.
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import federated


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = federated("federated_relay_rounds", "relay_rounds")
    parse_arg(config, arg)
    return config
