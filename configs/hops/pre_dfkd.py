"""PRE-DFKD (Binici et al., AAAI 2022) on Fashion-MNIST.

Question: what accuracy does a student of LeNet-5 reach with this method, against the
others of this folder? This file has the tuned learning rate of that comparison, but not
its budget: `python -m papers_repro.dfkd.reproduce --only A4` sets it.

    python scripts/train.py --config configs/hops/pre_dfkd.py
    python scripts/sweep.py --config configs/hops/pre_dfkd.py --seeds 0,1,2

Result: 64.4 % with three minutes, one seed; `relay` has 83.6 (`A4` in
`papers_repro/dfkd/`). Its curve on validation images ends at 63.4, after a peak of
65.7. Published: nothing citable on Fashion-MNIST.
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import from_lenet


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_lenet("hops_pre_dfkd", "cloud>edge", dataset="fashion_mnist")
    hop = config.down_cloud_edge
    hop.distiller = "pre_dfkd"
    # Published: ten student steps for each of 14,400 generator steps of 1024 images.
    hop.update(rounds=20, steps=16, student_steps=10)
    # Published for the student: SGD at 0.1; Adam here.
    hop.update(generator_learning_rate=0.02, learning_rate=2e-3)
    hop.weights.update(cross_entropy=0.0, batchnorm=0.0, one_hot=1.0, activation=0.1)
    # Published: 5 for log10, and 1 for a divergence that is also averaged over the ten
    # classes.
    hop.weights.update(balance=2.17, adversarial=0.1)
    parse_arg(config, arg)
    return config
