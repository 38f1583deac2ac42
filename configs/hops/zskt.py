"""ZSKT (Micaelli and Storkey, NeurIPS 2019) on Fashion-MNIST.

Question: what accuracy does a student of LeNet-5 reach with this method, against the
others of this folder? This file has neither the budget nor the tuned settings of
that comparison: `python -m papers_repro.dfkd.reproduce --only A4` sets both.

    python scripts/train.py --config configs/hops/zskt.py
    python scripts/sweep.py --config configs/hops/zskt.py --seeds 0,1,2

Result: 30.7 % with three minutes, one seed; `relay` has 83.6 (`A4` in
`papers_repro/dfkd/`). Its curve on validation images ends at 30.5, after a peak of
68.4. Published: nothing citable on Fashion-MNIST.
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import from_lenet


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_lenet("hops_zskt", "cloud>edge", dataset="fashion_mnist")
    hop = config.down_cloud_edge
    hop.distiller = "zskt"
    # Published: ten student steps on each of 80,000 batches on CIFAR-10.
    hop.update(rounds=20, steps=16, student_steps=10, temperature=1.0)
    hop.update(generator_learning_rate=1e-3, learning_rate=2e-3)
    hop.weights.update(cross_entropy=0.0, batchnorm=0.0, balance=0.0)
    # Published: 250, where the KL is also averaged over the ten classes.
    hop.weights.update(adversarial=1.0, attention=2500.0)
    parse_arg(config, arg)
    return config
