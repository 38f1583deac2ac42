"""FedGen: the devices' last layers (heads) distilled into a generator of features.

Question: how much does the generator add to `fedavg.py` on the same devices?

    python scripts/train.py --config configs/federated/fedgen.py
    python scripts/sweep.py --config configs/federated/fedgen.py --seeds 0,1,2

Result: 96.5 % on each device's own classes, and 91.8 % after 20 rounds. Expected: 95.7
and 92 % (`B1` in `papers_repro/fedgen/`).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import federated


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = federated("federated_fedgen", "fedgen")
    parse_arg(config, arg)
    return config
