"""FedAvg among devices of which a fifth flip their labels, with a robust aggregator.

Question: what does the median or the trimmed mean keep of FedAvg's accuracy?

    python scripts/train.py --config configs/federated/fedavg_flipped.py
    python scripts/sweep.py --config configs/federated/fedavg_flipped.py \
        --seeds 0,1,2 --grid federated.aggregator=mean,median,trimmed_mean

Devices are IID: among devices with different labels, the median loses what few of them
know, so its accuracy would not tell what the flipped labels cost.

Result: not run. On a toy federation (`tests/test_federated_robust.py`), the flipped
labels win over the mean if those who flip them have most of the images, and not over
the robust aggregators.
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import federated


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = federated("federated_fedavg_flipped", "fedavg")
    config.data.partition = "iid"
    config.federated.aggregator = "median"
    config.federated.faults.flip = 0.2
    parse_arg(config, arg)
    return config
