"""NAYER-type generation (Tran et al., CVPR 2024) on Fashion-MNIST.

Question: what accuracy does a student of LeNet-5 reach with this method, against the
others of this folder? This file has neither the budget nor the tuned settings of
that comparison: `python -m papers_repro.dfkd.reproduce --only A4` sets both.

    python scripts/train.py --config configs/hops/nayer.py
    python scripts/sweep.py --config configs/hops/nayer.py --seeds 0,1,2

Result: 82.9 % with three minutes, one seed; `relay` has 83.6. Ten minutes and three
seeds give 84.7, `relay` 84.5 (`A4` in `papers_repro/dfkd/`). Published: nothing
citable on this dataset; on CIFAR-100 the student keeps about 71.7 of 75.83 % (WRN-40-2
to WRN-16-2).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import from_lenet


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_lenet("hops_nayer", "cloud>edge", dataset="fashion_mnist")
    hop = config.down_cloud_edge
    hop.distiller = "nayer"
    # Published: 400 student steps for two batches.
    hop.update(rounds=20, steps=2, student_steps=200, bank_size=8192)
    hop.update(inner_steps=30, generator_learning_rate=4e-3, temperature=20.0)
    hop.batchnorm_momentum = 0.1
    # LeNet-5 has no BatchNorm; the term acts on its running feature statistics.
    hop.weights.update(cross_entropy=0.5, batchnorm=10.0, adversarial=1.33, balance=0.0)
    hop.adversarial_mask = "agree"
    parse_arg(config, arg)
    return config
