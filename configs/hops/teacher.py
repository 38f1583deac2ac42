"""The teacher of the down hops: LeNet-5 on 55,000 images, and no hop.

Question: how good is the teacher of every hop from the cloud?

    python scripts/train.py --config configs/hops/teacher.py
    python scripts/sweep.py --config configs/hops/teacher.py --seeds 0,1,2,3,4

Result: 99.0 % on the MNIST test images (`A1` in `papers_repro/dfkd/`). `a1.py`,
`a2.py`, `baselines.py`, `d1.py` and `d1_direct.py` with the same seed can start from
its run folder (`protocol.start_from`), so that all methods share the teacher. With
`--config.data.name=fashion_mnist` it is that of `a4.py` and of the distillers' configs.
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import from_lenet


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_lenet("hops_teacher")
    parse_arg(config, arg)
    return config
