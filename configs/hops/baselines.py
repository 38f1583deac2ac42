r"""The baselines of the hop of `a1.py`, on the same budget.

Question: what accuracy does the student of the data-free hop reach with real labels,
with real images, with noise and with images of another dataset?

    python scripts/train.py --config configs/hops/baselines.py
    python scripts/train.py --config configs/hops/baselines.py \
        --config.protocol.start_from=runs/hops_teacher/<run>

Result, as expected (`A1` in `papers_repro/dfkd/`): distillation on real images has
98.77 % (five seeds; the hop has 98.31), on noise it ends far below the hop,
on another dataset between them.
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import for_lenets, from_lenet


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_lenet("hops_baselines", "cloud>edge")
    baselines = ("student", "kd", "kd_noise", "kd_usps", "kd_fashion_mnist")
    config.protocol.baselines = baselines
    for_lenets(config, "down_cloud_edge")
    config.down_cloud_edge.update(rounds=90, steps=40)
    parse_arg(config, arg)
    return config
