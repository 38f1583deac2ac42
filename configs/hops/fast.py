"""Fast with a meta generator (Fang et al., AAAI 2022) on Fashion-MNIST.

Question: what accuracy does a student of LeNet-5 reach with this method, against the
others of this folder? This file has neither the budget nor the tuned settings of
that comparison: `python -m papers_repro.dfkd.reproduce --only A4` sets both.

    python scripts/train.py --config configs/hops/fast.py
    python scripts/sweep.py --config configs/hops/fast.py --seeds 0,1,2

Result: the best with three minutes, 84.7 %, one seed; `relay` has 83.6. Ten minutes and
three seeds give 84.7, `relay` 84.5 (`A4` in `papers_repro/dfkd/`). Published: nothing
citable on this dataset; on CIFAR-10 the student keeps 88.90 of 94.87 % with five inner
steps (WRN-40-2 to WRN-16-1).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import from_lenet


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_lenet("hops_fast", "cloud>edge", dataset="fashion_mnist")
    hop = config.down_cloud_edge
    hop.distiller = "fast"
    # Published: 400 student steps per batch.
    hop.update(rounds=20, steps=1, student_steps=400, bank_size=4096)
    hop.update(inner_steps=5, generator_learning_rate=3e-3, temperature=20.0)
    hop.batchnorm_momentum = 0.1
    # LeNet-5 has no BatchNorm; the term acts on its running feature statistics.
    hop.weights.update(cross_entropy=0.4, batchnorm=10.0, adversarial=1.1, balance=0.0)
    hop.adversarial_mask = "agree"
    parse_arg(config, arg)
    return config
