r"""Ten devices teach the cloud at once, with as many FLOPs as all hops of `d2.py`.

Question: how good is the cloud without the edges in between?

    python scripts/train.py --config configs/hops/d2_flat.py
    python scripts/sweep.py --config configs/hops/d2_flat.py --seeds 0,1,2,3,4
    python scripts/train.py --config configs/hops/d2_flat.py \
        --config.protocol.start_from=runs/hops_d2/<run>

Result: the cloud has 96.1 %; `d2.py` has 95.3 and so misses its bar (`D2` in
`papers_repro/dfkd/`).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import for_skewed_teachers, from_skewed_devices


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_skewed_devices("hops_d2_flat", "end>cloud", num_edges=2)
    config.nets.update(cloud="cnn_large", edge="cnn_medium", end="cnn_small")
    for_skewed_teachers(config, "up_end_cloud")
    config.up_end_cloud.update(rounds=49, temperature=2.0, generator_learning_rate=5e-2)
    parse_arg(config, arg)
    return config
