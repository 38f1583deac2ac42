"""Contrastive model inversion (Fang et al., IJCAI 2021) on Fashion-MNIST.

Question: what does a student learn from LeNet-5 by this method, against the others of
this folder? This file has neither the budget nor the tuned rate of that comparison:
`python -m papers_repro.dfkd.reproduce --only A4` sets both.

    python scripts/train.py --config configs/hops/cmi.py
    python scripts/sweep.py --config configs/hops/cmi.py --seeds 0,1,2

Came out: 75.4 % with three minutes, one seed, where `relay` has 82.2 (`A4` in
`papers_repro/dfkd/`). Published: nothing citable on this dataset; on CIFAR-10 it keeps
90.01 of 94.87 % (WRN-40-2 to WRN-16-1).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import from_lenet


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_lenet("hops_cmi", "cloud>edge", dataset="fashion_mnist")
    hop = config.down_cloud_edge
    hop.distiller = "cmi"
    # The published recipe that starts without images: 400 student steps for a batch.
    hop.update(rounds=20, steps=1, student_steps=400, bank_size=4096)
    hop.update(inner_steps=200, generator_learning_rate=1e-3, temperature=20.0)
    # LeNet-5 records the moments that a BatchNorm would: the term acts on those.
    hop.weights.update(cross_entropy=1.0, batchnorm=1.0, adversarial=0.5)
    hop.weights.update(contrastive=0.8, balance=0.0)
    hop.adversarial_mask = "agree"
    parse_arg(config, arg)
    return config
