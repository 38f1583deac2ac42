"""FedAdam: Adam on the server.

Question: does an adaptive server help, against `fedavg.py`?

    python scripts/train.py --config configs/federated/fedadam.py
    python scripts/sweep.py --config configs/federated/fedadam.py --seeds 0,1,2

Result: faster than `fedavg.py` in rounds, as expected: 59.9 against 51.5 % after 6
rounds on MNIST, and 90.0 against 89.4 after 60 (`B4.ranking` in `papers_repro/fedgen/`,
alpha 0.1).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import federated


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = federated("federated_fedadam", "fedadam")
    parse_arg(config, arg)
    return config
