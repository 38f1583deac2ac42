r"""LeNet-5 teaches LeNet-5-half without data, in 15 minutes on two cores.

Question: how near does a data-free hop come to its teacher?

    python scripts/train.py --config configs/hops/a1.py
    python scripts/sweep.py --config configs/hops/a1.py --seeds 0,1,2,3,4
    python scripts/train.py --config configs/hops/a1.py \
        --config.protocol.start_from=runs/hops_teacher/<run>

Expected: at least 98.2 % on the MNIST test images (DAFL 98.20, DFAD 98.3), compilation
in, the teacher's training out.
"""

from ecogen_jax.config import ConfigDict, default, parse_arg
from ecogen_jax.config_hops import for_lenets


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = default()
    config.experiment = "hops_a1"
    config.data.update(public_fraction=1.0, validation_fraction=1 / 12)
    config.topology.update(num_edges=1, devices_per_edge=1)
    config.nets.update(cloud="lenet5", edge="lenet5_half", end="lenet5_quarter")
    config.pretrain.update(rounds=10, steps=215, batch_size=128, learning_rate=2e-3)
    config.protocol.update(name="hops", cycles=1, route=("cloud>edge",))
    for_lenets(config, "down_cloud_edge")
    config.down_cloud_edge.update(rounds=90, steps=40)
    parse_arg(config, arg)
    return config
