r"""Cloud to end in one hop, with the budget of both hops of `d1.py`.

Question: what does the way over the edge cost?

    python scripts/train.py --config configs/hops/d1_direct.py
    python scripts/sweep.py --config configs/hops/d1_direct.py --seeds 0,1,2,3,4
    python scripts/train.py --config configs/hops/d1_direct.py \
        --config.protocol.start_from=runs/hops_teacher/<run>

Expected: see `d1.py`.
"""

from ecogen_jax.config import ConfigDict, default, parse_arg
from ecogen_jax.config_hops import for_lenets


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = default()
    config.experiment = "hops_d1_direct"
    config.data.update(public_fraction=1.0, validation_fraction=1 / 12)
    config.topology.update(num_edges=1, devices_per_edge=1)
    config.nets.update(cloud="lenet5", edge="lenet5_half", end="lenet5_quarter")
    config.pretrain.update(rounds=10, steps=215, batch_size=128, learning_rate=2e-3)
    config.protocol.update(name="hops", cycles=1, route=("cloud>end",))
    for_lenets(config, "down_cloud_end")
    config.down_cloud_end.update(rounds=30, steps=40)  # both of d1.py
    parse_arg(config, arg)
    return config
