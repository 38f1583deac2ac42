"""NAYER-type generation (Tran et al., CVPR 2024) on Fashion-MNIST.

Question: what does a student learn from LeNet-5 by this method, against the others of
this folder on the same budget?

    python scripts/train.py --config configs/hops/nayer.py
    python scripts/sweep.py --config configs/hops/nayer.py --seeds 0,1,2

Expected: nothing citable on this dataset. On CIFAR-100 it keeps about 71.7 of 75.83 %
(WRN-40-2 to WRN-16-2).
"""

from ecogen_jax.config import ConfigDict, default, parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = default()
    config.experiment = "hops_nayer"
    config.data.update(
        name="fashion_mnist", public_fraction=1.0, validation_fraction=1 / 12
    )
    config.topology.update(num_edges=1, devices_per_edge=1)
    config.nets.update(cloud="lenet5", edge="lenet5_half", end="lenet5_quarter")
    config.pretrain.update(rounds=10, steps=215, batch_size=128, learning_rate=2e-3)
    config.protocol.update(name="hops", cycles=1, route=("cloud>edge",))
    hop = config.down_cloud_edge
    hop.distiller = "nayer"
    # Published: 400 student steps for two batches.
    hop.update(rounds=20, steps=2, student_steps=200, bank_size=8192)
    hop.update(inner_steps=30, generator_learning_rate=4e-3, temperature=20.0)
    hop.batchnorm_momentum = 0.1
    # LeNet-5 records the moments that a BatchNorm would: the term acts on those.
    hop.weights.update(cross_entropy=0.5, batchnorm=10.0, adversarial=1.33, balance=0.0)
    hop.adversarial_mask = "agree"
    parse_arg(config, arg)
    return config
