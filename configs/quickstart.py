"""One relay cycle on real images in minutes: the first experiment to run.

Question: how much of the cloud's accuracy reaches edges and end devices if no image
crosses a link, and what does it cost?

    python scripts/train.py --config configs/quickstart.py

Every stage has half to four fifths of the rounds of `configs/relay_cycle.py`, and there
is one cycle.
"""

from ecogen_jax.config import ConfigDict, default, parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = default()
    config.experiment = "quickstart"
    config.protocol.cycles = 1
    config.pretrain.rounds = 5
    config.down_cloud_edge.rounds = 5
    config.down_edge_end.rounds = 5
    config.local.rounds = 4
    config.up_end_edge.rounds = 3
    config.up_edge_cloud.rounds = 3
    parse_arg(config, arg)
    return config
