r"""One shot: five devices with skewed private data teach the cloud at once.

Question: does a data-free hop from an ensemble of skewed nets keep what they know?

    python scripts/train.py --config configs/hops/c1.py
    python scripts/sweep.py --config configs/hops/c1.py --seeds 0,1,2,3,4 \
        --grid data.alpha=0.1,0.3,0.5

Expected: at least DENSE (66.6, 76.5 and 95.8 % at alpha 0.1, 0.3 and 0.5) and 90 % of
the plain ensemble, which `baselines.ensemble_end` of the summary holds.
"""

from ecogen_jax.config import ConfigDict, default, parse_arg
from ecogen_jax.config_hops import for_skewed_teachers


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = default()
    config.experiment = "hops_c1"
    config.data.update(public_fraction=0.0, validation_fraction=1 / 12, alpha=0.1)
    config.topology.update(num_edges=1, devices_per_edge=5)
    config.nets.update(cloud="cnn_medium", edge="cnn_medium", end="cnn_medium")
    config.protocol.update(name="hops", cycles=1, route=("end>cloud",))
    config.local.update(rounds=10, steps=100, batch_size=64)
    for_skewed_teachers(config, "up_end_cloud")
    config.up_end_cloud.rounds = 10
    parse_arg(config, arg)
    return config
