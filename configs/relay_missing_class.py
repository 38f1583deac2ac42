"""The cloud has never seen two of the classes; the end devices have.

Question: does knowledge of a class travel up through two data-free hops to a cloud
whose own images lack it?

    python scripts/train.py --config configs/relay_missing_class.py
    python scripts/sweep.py --config configs/relay_missing_class.py --seeds 0,1,2

Result: the cloud's accuracy on all classes rises by 12.2 points in one cycle on MNIST;
the bar is 5 (`S3.missing` in `papers_repro/relay_cycle/`).
"""

from ecogen_jax.config import ConfigDict, default, parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = default()
    config.experiment = "relay_missing_class"
    config.data.public_missing_classes = (8, 9)
    config.protocol.cycles = 1
    parse_arg(config, arg)
    return config
