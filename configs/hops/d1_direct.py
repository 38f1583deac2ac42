r"""Cloud to end in one hop, with the budget of both hops of `d1.py`.

Question: what does the hop over the edge cost in accuracy?

    python scripts/train.py --config configs/hops/d1_direct.py
    python scripts/sweep.py --config configs/hops/d1_direct.py --seeds 0,1,2,3,4
    python scripts/train.py --config configs/hops/d1_direct.py \
        --config.protocol.start_from=runs/hops_teacher/<run>

Result: the device has 95.8 %, 0.7 points more than with the hop over the edge (`D1` in
`papers_repro/dfkd/`).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import for_lenets, from_lenet


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_lenet("hops_d1_direct", "cloud>end")
    for_lenets(config, "down_cloud_end")
    config.down_cloud_end.update(rounds=30, steps=40)  # as both hops of d1.py
    parse_arg(config, arg)
    return config
