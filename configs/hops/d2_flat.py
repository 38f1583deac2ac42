r"""Ten devices to the cloud at once, with the budget of all hops of `d2.py`.

Question: what is the flat ensemble worth to the cloud?

    python scripts/train.py --config configs/hops/d2_flat.py
    python scripts/sweep.py --config configs/hops/d2_flat.py --seeds 0,1,2,3,4
    python scripts/train.py --config configs/hops/d2_flat.py \
        --config.protocol.start_from=runs/hops_d2/<run>

Expected: see `d2.py`.
"""

from ecogen_jax.config import ConfigDict, default, parse_arg
from ecogen_jax.config_hops import for_skewed_teachers


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = default()
    config.experiment = "hops_d2_flat"
    config.data.update(public_fraction=0.0, validation_fraction=1 / 12, alpha=0.1)
    config.topology.update(num_edges=2, devices_per_edge=5)
    config.nets.update(cloud="cnn_large", edge="cnn_medium", end="cnn_small")
    config.protocol.update(name="hops", cycles=1, route=("end>cloud",))
    config.local.update(rounds=10, steps=100, batch_size=64)
    for_skewed_teachers(config, "up_end_cloud")
    config.up_end_cloud.rounds = 18  # of two edges and the cloud in d2.py
    parse_arg(config, arg)
    return config
