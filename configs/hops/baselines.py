r"""What the hop of `a1.py` is compared with, on the same budget.

Question: what would real labels, real images, noise and images of another dataset have
given the student of the data-free hop?

    python scripts/train.py --config configs/hops/baselines.py
    python scripts/train.py --config configs/hops/baselines.py \
        --config.protocol.start_from=runs/hops_teacher/<run>

Expected: real images above the hop, noise far below it, another dataset between them.
"""

from ecogen_jax.config import ConfigDict, default, parse_arg
from ecogen_jax.config_hops import for_lenets


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = default()
    config.experiment = "hops_baselines"
    config.data.update(public_fraction=1.0, validation_fraction=1 / 12)
    config.topology.update(num_edges=1, devices_per_edge=1)
    config.nets.update(cloud="lenet5", edge="lenet5_half", end="lenet5_quarter")
    config.pretrain.update(rounds=10, steps=215, batch_size=128, learning_rate=2e-3)
    baselines = ("student", "kd", "kd_noise", "kd_usps", "kd_fashion_mnist")
    config.protocol.update(
        name="hops", cycles=1, route=("cloud>edge",), baselines=baselines
    )
    for_lenets(config, "down_cloud_edge")
    config.down_cloud_edge.update(rounds=90, steps=40)
    parse_arg(config, arg)
    return config
