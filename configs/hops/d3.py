r"""The round trip: ten devices to the cloud over two edges, and back.

Question: how much does a device learn about classes that it never saw?

    python scripts/train.py --config configs/hops/d3.py
    python scripts/sweep.py --config configs/hops/d3.py --seeds 0,1,2,3,4
    python scripts/train.py --config configs/hops/d3.py \
        --config.protocol.start_from=runs/hops_d2/<run>

Result: on classes that it never saw (`end_unseen`), a device is 88.3 points above local
training alone, where the bar is 20. On its own classes it is 9.6 points below (`D3` in
`papers_repro/dfkd/`).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import for_skewed_teachers, from_skewed_devices


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_skewed_devices(
        "hops_d3", "end>edge", "edge>cloud", "cloud>edge", "edge>end", num_edges=2
    )
    config.protocol.hand_on_generators = True
    config.nets.update(cloud="cnn_large", edge="cnn_medium", end="cnn_small")
    for_skewed_teachers(config, "up_end_edge", "up_edge_cloud")
    config.up_end_edge.rounds = 10  # fewer than in d2.py, with the preset's rate
    config.up_edge_cloud.rounds = 8
    parse_arg(config, arg)
    return config
