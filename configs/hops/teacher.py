"""The teacher of the down hops: LeNet-5 on 55,000 images, and no hop.

Question: how good is the net that every hop from the cloud begins with?

    python scripts/train.py --config configs/hops/teacher.py
    python scripts/sweep.py --config configs/hops/teacher.py --seeds 0,1,2,3,4

Expected: about 98.9 % on the MNIST test images. Other configs of this folder with the
same seed start from its run folder (`protocol.start_from`), so that all methods share
it.
"""

from ecogen_jax.config import ConfigDict, default, parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = default()
    config.experiment = "hops_teacher"
    config.data.update(public_fraction=1.0, validation_fraction=1 / 12)
    config.topology.update(num_edges=1, devices_per_edge=1)
    config.nets.update(cloud="lenet5", edge="lenet5_half", end="lenet5_quarter")
    config.pretrain.update(rounds=10, steps=215, batch_size=128, learning_rate=2e-3)
    config.protocol.update(name="hops", cycles=1, route=())
    parse_arg(config, arg)
    return config
