"""FedAvg among devices of which a fifth flip their labels, with a robust aggregator.

Question: what does the median or the trimmed mean keep of FedAvg's accuracy?

    python scripts/train.py --config configs/federated/fedavg_flipped.py
    python scripts/sweep.py --config configs/federated/fedavg_flipped.py \
        --seeds 0,1,2 --grid federated.aggregator=mean,median,trimmed_mean

Devices are IID: among devices with different labels, the median loses what few of them
know, so its accuracy would not tell what the flipped labels cost.

Result (`B6` in `papers_repro/fedgen/`, three seeds): the mean falls from 95.2 to 46.7 %
on the test images, the trimmed mean keeps 71.2 and the median 90.8.
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
