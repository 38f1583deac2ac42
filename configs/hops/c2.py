"""One shot as in `c1.py`, with three kinds of net among the five devices.

Question: does it matter to the hop that its teachers are different nets?

    python scripts/train.py --config configs/hops/c2.py
    python scripts/sweep.py --config configs/hops/c2.py --seeds 0,1,2,3,4

Expected: not more than 2 points below `c1.py`.
"""

from ecogen_jax.config import ConfigDict, default, parse_arg
from ecogen_jax.config_hops import for_skewed_teachers


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = default()
    config.experiment = "hops_c2"
    config.data.update(public_fraction=0.0, validation_fraction=1 / 12, alpha=0.1)
    config.topology.update(num_edges=1, devices_per_edge=5)
    config.nets.update(cloud="cnn_medium", edge="cnn_medium")
    config.nets.end = "cnn_medium,lenet5,mlp"
    config.protocol.update(name="hops", cycles=1, route=("end>cloud",))
    config.local.update(rounds=10, steps=100, batch_size=64)
    for_skewed_teachers(config, "up_end_cloud")
    config.up_end_cloud.rounds = 10
    parse_arg(config, arg)
    return config
