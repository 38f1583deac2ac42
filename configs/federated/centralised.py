"""One device that holds all images: the upper reference of every comparison.

Question: how good is the net if all images are in one place?

    python scripts/train.py --config configs/federated/centralised.py
    python scripts/sweep.py --config configs/federated/centralised.py --seeds 0,1,2

Result: 97.4 % after 60 rounds on MNIST; the best federation has 96.9 (`B4.ranking` in
`papers_repro/fedgen/`, alpha 0.3).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import federated


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = federated("federated_centralised", "alone")
    config.topology.update(num_edges=1, devices_per_edge=1)
    # As many steps as ten devices do in a round.
    config.federated.update(active=1, steps=200)
    parse_arg(config, arg)
    return config
