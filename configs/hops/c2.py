"""One shot as in `c1.py`, with three kinds of net among the five devices.

Question: does it matter to the hop that its teachers have different architectures?

    python scripts/train.py --config configs/hops/c2.py
    python scripts/sweep.py --config configs/hops/c2.py --seeds 0,1,2,3,4

Result at alpha 0.1: 1.1 points below `c1.py` on average over five seeds, within the bar
of 2, and 2.7 on the worst seed; at alpha 0.3 and 0.5, 0.3 and 0.1 on average (`C2` in
`papers_repro/dense/`).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import for_skewed_teachers, from_skewed_devices


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_skewed_devices("hops_c2", "end>cloud")
    config.nets.update(cloud="cnn_medium", edge="cnn_medium")
    config.nets.end = "cnn_medium,lenet5,mlp"
    for_skewed_teachers(config, "up_end_cloud")
    config.up_end_cloud.rounds = 10
    parse_arg(config, arg)
    return config
