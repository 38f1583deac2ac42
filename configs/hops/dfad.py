"""DFAD (Fang et al., 2019) on Fashion-MNIST.

Question: what accuracy does a student of LeNet-5 reach with this method, against the
others of this folder? This file has neither the budget nor the tuned settings of
that comparison: `python -m papers_repro.dfkd.reproduce --only A4` sets both.

    python scripts/train.py --config configs/hops/dfad.py
    python scripts/sweep.py --config configs/hops/dfad.py --seeds 0,1,2

Result: the lowest, 11.2 % with three minutes, one seed; `relay` has 83.6 (`A4` in
`papers_repro/dfkd/`). Its curve on validation images ends at 11.9, after a peak of
34.3. Published: nothing citable on Fashion-MNIST (on MNIST 98.3 %).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import from_lenet


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_lenet("hops_dfad", "cloud>edge", dataset="fashion_mnist")
    hop = config.down_cloud_edge
    hop.distiller = "dfad"
    # Published: 2,000 rounds of five student steps and one generator step, 512 images.
    hop.update(rounds=20, steps=32, student_steps=5)
    # Published for the student: SGD at 0.01; Adam here.
    hop.update(generator_learning_rate=1e-3, learning_rate=2e-3)
    hop.weights.update(cross_entropy=0.0, batchnorm=0.0, balance=0.0)
    hop.weights.adversarial = 1.0
    parse_arg(config, arg)
    return config
