r"""Cloud to edge to end: two hops, and a smaller net after each.

Question: what does the hop over the edge cost in accuracy, against `d1_direct.py`?

    python scripts/train.py --config configs/hops/d1.py
    python scripts/sweep.py --config configs/hops/d1.py --seeds 0,1,2,3,4
    python scripts/train.py --config configs/hops/d1.py \
        --config.protocol.start_from=runs/hops_teacher/<run>

Result: the device has 95.1 %, on average 0.7 points below the direct hop, within the
bar of 1.0, and 2.0 below on the worst of five seeds (`D1` in `papers_repro/dfkd/`).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import for_lenets, from_lenet


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_lenet("hops_d1", "cloud>edge", "edge>end")
    config.protocol.hand_on_generators = True
    for_lenets(config, "down_cloud_edge", "down_edge_end")
    config.down_cloud_edge.update(rounds=15, steps=40)
    config.down_edge_end.update(rounds=15, steps=40)
    parse_arg(config, arg)
    return config
