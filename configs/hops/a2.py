r"""LeNet-5 teaches LeNet-5-half without data, in 3 CPU-minutes.

Question: what accuracy does a data-free hop reach on a small budget?

    python scripts/train.py --config configs/hops/a2.py
    python scripts/sweep.py --config configs/hops/a2.py --seeds 0,1,2,3,4
    python scripts/train.py --config configs/hops/a2.py \
        --config.protocol.start_from=runs/hops_teacher/<run>

Result: 98.0 % on the MNIST test images on average, above the bar of 97.0, in 62
seconds at most on one core, without compilation (`A2` in `papers_repro/dfkd/`).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import for_lenets, from_lenet


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_lenet("hops_a2", "cloud>edge")
    for_lenets(config, "down_cloud_edge")
    config.down_cloud_edge.update(rounds=30, steps=40)
    parse_arg(config, arg)
    return config
