r"""The round trip: ten devices to the cloud over two edges, and back.

Question: what does a device learn of the classes that it never saw?

    python scripts/train.py --config configs/hops/d3.py
    python scripts/sweep.py --config configs/hops/d3.py --seeds 0,1,2,3,4
    python scripts/train.py --config configs/hops/d3.py \
        --config.protocol.start_from=runs/hops_d2/<run>

Expected: 20 points more on those classes than by local training alone (`end_unseen`).
"""

from ecogen_jax.config import ConfigDict, default, parse_arg
from ecogen_jax.config_hops import for_skewed_teachers


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = default()
    config.experiment = "hops_d3"
    config.data.update(public_fraction=0.0, validation_fraction=1 / 12, alpha=0.1)
    config.topology.update(num_edges=2, devices_per_edge=5)
    config.nets.update(cloud="cnn_large", edge="cnn_medium", end="cnn_small")
    route = ("end>edge", "edge>cloud", "cloud>edge", "edge>end")
    config.protocol.update(name="hops", cycles=1, route=route)
    config.local.update(rounds=10, steps=100, batch_size=64)
    for_skewed_teachers(config, "up_end_edge", "up_edge_cloud")
    config.up_end_edge.rounds = 5
    config.up_edge_cloud.rounds = 8
    parse_arg(config, arg)
    return config
