"""DAFL (Chen et al., ICCV 2019) on Fashion-MNIST.

Question: what accuracy does a student of LeNet-5 reach with this method, against the
others of this folder? This file has neither the budget nor the tuned settings of
that comparison: `python -m papers_repro.dfkd.reproduce --only A4` sets both.

    python scripts/train.py --config configs/hops/dafl.py
    python scripts/sweep.py --config configs/hops/dafl.py --seeds 0,1,2

Result: 71.1 % with three minutes, one seed; `relay` has 83.6 (`A4` in
`papers_repro/dfkd/`). Published: nothing citable on Fashion-MNIST (on MNIST 98.20 %).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import from_lenet


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_lenet("hops_dafl", "cloud>edge", dataset="fashion_mnist")
    hop = config.down_cloud_edge
    hop.distiller = "dafl"
    # Published: one student step per batch, 24,000 batches of 512 images on MNIST.
    hop.update(rounds=20, steps=160, student_steps=1, temperature=1.0)
    hop.update(generator_learning_rate=0.2, learning_rate=2e-3)
    hop.weights.update(cross_entropy=0.0, batchnorm=0.0, adversarial=0.0)
    # Published for MNIST; a weight of 5 for log10 is 5 / ln 10 for the natural log.
    hop.weights.update(one_hot=1.0, activation=0.1, balance=2.17)
    parse_arg(config, arg)
    return config
