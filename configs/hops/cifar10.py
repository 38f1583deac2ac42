r"""CIFAR-10, WRN-40-2 to WRN-16-1, with the schedule of NAYER for 100 epochs.

Question: does the engine carry over to the nets and images that the field reports?

    python scripts/train.py --config configs/hops/cifar10.py --config.mesh.num_devices=1
    python -m papers_repro.dfkd.reproduce --only cifar10    # and prints its table

Needs a GPU: on two CPU cores it would take days. Only its smoke form has been run. A
killed run resumes from its last round, so it can be run in several pieces.

Images are shifted and mirrored: without augmentation, nets of this kind memorise the
training images. A `cnn_large`, which CPUs train in minutes, ends at 79.0 % on test with
both augmentations, and at 66.4 % with neither (seed 0):

    python scripts/train.py --config configs/hops/teacher.py \
        --config.data.name=cifar10 --config.nets.cloud=cnn_large \
        --config.pretrain.rounds=30 --config.pretrain.steps=352 \
        --config.pretrain.shift=4 --config.pretrain.flip=True \
        --config.mesh.num_devices=1

Expected: with this pair, a published student reaches 90.01 % at its best epoch (CMI),
from a teacher of 94.87 %; trained on the real images, it reaches 91.12 %.
"""

from ecogen_jax.config import ConfigDict, default, parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = default()
    config.experiment = "hops_cifar10"
    config.data.update(name="cifar10", public_fraction=1.0, validation_fraction=0.1)
    config.topology.update(num_edges=1, devices_per_edge=1)
    config.nets.update(cloud="wrn_40_2", edge="wrn_16_1", end="cnn_small")
    config.generator.update(latent_size=256, width=64)
    config.pretrain.update(rounds=60, steps=352, batch_size=128, learning_rate=2e-3)
    config.pretrain.update(shift=4, flip=True)
    config.protocol.update(name="hops", cycles=1, route=("cloud>edge",))
    hop = config.down_cloud_edge
    hop.distiller = "nayer"
    # Two batches and 400 student steps per epoch; 100 rounds of one epoch each.
    hop.update(rounds=100, steps=2, student_steps=200, batch_size=400)
    hop.update(inner_steps=30, generator_learning_rate=4e-3, temperature=20.0)
    hop.update(bank_size=80000, learning_rate=2e-3, batchnorm_momentum=0.1)
    hop.update(shift=4, flip=True)
    hop.weights.update(cross_entropy=0.5, batchnorm=10.0, adversarial=1.33, balance=0.0)
    hop.adversarial_mask = "agree"
    parse_arg(config, arg)
    return config
