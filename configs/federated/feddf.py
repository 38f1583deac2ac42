"""FedDF: the average is distilled on unlabelled real images; not data-free.

Question: how good is a server with proxy images, against methods without any?

    python scripts/train.py --config configs/federated/feddf.py
    python scripts/sweep.py --config configs/federated/feddf.py --seeds 0,1,2

Not in any ranking, since the server has the public half of the images. Result: below
`fedavg.py` nevertheless, 73 against 77 % on Fashion-MNIST at alpha 0.1
(`B4.ranking` in `papers_repro/fedgen/`). Expected: above it.
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import federated


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = federated("federated_feddf", "feddf")
    parse_arg(config, arg)
    return config
