"""Co-Boosting (Dai et al., ICLR 2024) with a single teacher on Fashion-MNIST.

Question: what accuracy does a student of LeNet-5 reach with this method, against the
others of this folder? This file has neither the budget nor the tuned settings of
that comparison: `python -m papers_repro.dfkd.reproduce --only A4` sets both.

    python scripts/train.py --config configs/hops/co_boosting.py
    python scripts/sweep.py --config configs/hops/co_boosting.py --seeds 0,1,2

Result: 73.3 % with three minutes, one seed; `relay` has 83.6 (`A4` in
`papers_repro/dfkd/`). Published: nothing citable with a single teacher, for which there
is no ensemble weight to learn; `co_boosting_oneshot.py` is its own setting.
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import from_lenet


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_lenet("hops_co_boosting", "cloud>edge", dataset="fashion_mnist")
    hop = config.down_cloud_edge
    hop.distiller = "co_boosting"
    # Published: one pass over all images so far after each batch. On average over the
    # hop, that is half as many student steps per batch as there are batches.
    hop.update(rounds=20, steps=4, student_steps=40, bank_size=10240)
    hop.update(inner_steps=30, generator_learning_rate=1e-3, temperature=4.0)
    hop.weights.update(cross_entropy=1.0, batchnorm=0.0, adversarial=1.0, balance=0.0)
    hop.adversarial_mask = "none"
    parse_arg(config, arg)
    return config
