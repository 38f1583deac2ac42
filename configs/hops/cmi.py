"""Contrastive model inversion (Fang et al., IJCAI 2021) on Fashion-MNIST.

Question: what accuracy does a student of LeNet-5 reach with this method, against the
others of this folder? This file has neither the budget nor the tuned settings of
that comparison: `python -m papers_repro.dfkd.reproduce --only A4` sets both.

    python scripts/train.py --config configs/hops/cmi.py
    python scripts/sweep.py --config configs/hops/cmi.py --seeds 0,1,2

Result: 78.1 % with three minutes, one seed; `relay` has 83.6 (`A4` in
`papers_repro/dfkd/`). Published: nothing citable on this dataset; on CIFAR-10 the
student keeps 90.01 of 94.87 % (WRN-40-2 to WRN-16-1).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import from_lenet


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_lenet("hops_cmi", "cloud>edge", dataset="fashion_mnist")
    hop = config.down_cloud_edge
    hop.distiller = "cmi"
    # The published recipe that starts with an empty bank: 400 student steps per batch.
    hop.update(rounds=20, steps=1, student_steps=400, bank_size=4096)
    hop.update(inner_steps=200, generator_learning_rate=1e-3, temperature=20.0)
    # LeNet-5 has no BatchNorm; the term acts on its running feature statistics.
    hop.weights.update(cross_entropy=1.0, batchnorm=1.0, adversarial=0.5)
    hop.weights.update(contrastive=0.8, balance=0.0)
    hop.adversarial_mask = "agree"
    parse_arg(config, arg)
    return config
