"""DFQ (Choi et al., CVPR Workshops 2020) on Fashion-MNIST.

Question: what accuracy does a student of LeNet-5 reach with this method, against the
others of this folder? This file has neither the budget nor the tuned settings of
that comparison: `python -m papers_repro.dfkd.reproduce --only A4` sets both.

    python scripts/train.py --config configs/hops/dfq.py
    python scripts/sweep.py --config configs/hops/dfq.py --seeds 0,1,2

Result: 82.8 % with three minutes, one seed; `relay` has 83.6 (`A4` in
`papers_repro/dfkd/`). Published: nothing citable on Fashion-MNIST.
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import from_lenet


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_lenet("hops_dfq", "cloud>edge", dataset="fashion_mnist")
    hop = config.down_cloud_edge
    hop.distiller = "dfq"
    # Published by CMI: ten student steps for each of 8,000 generator steps on CIFAR-10.
    # Its code sets the temperature to 20, but uses 1.
    hop.update(rounds=20, steps=16, student_steps=10, temperature=1.0)
    # Published for the student: SGD at 0.1; Adam here.
    hop.update(generator_learning_rate=1e-3, learning_rate=2e-3)
    # LeNet-5 has no BatchNorm; the term acts on its running feature statistics.
    hop.weights.update(cross_entropy=0.0, batchnorm=1.0)
    hop.weights.update(adversarial=1.0, one_hot=1.0, balance=20.0)
    parse_arg(config, arg)
    return config
