r"""Co-Boosting (Dai et al., ICLR 2024): one shot, five skewed devices.

Question: how much of an ensemble of skewed nets does this method keep, against `c1.py`?

    python scripts/train.py --config configs/hops/co_boosting_oneshot.py
    python scripts/sweep.py --config configs/hops/co_boosting_oneshot.py \
        --seeds 0,1,2,3,4 --grid data.alpha=0.1,0.3,0.5

Expected: above `dense_oneshot.py` (published on CIFAR-10, ten clients, alpha 0.1: 57.1
against 47.8 %).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import from_skewed_devices


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_skewed_devices("hops_co_boosting_oneshot", "end>cloud")
    config.nets.update(cloud="cnn_medium", edge="cnn_medium", end="cnn_medium")
    hop = config.up_end_cloud
    hop.distiller = "co_boosting"
    hop.teacher_weights = "equal"  # where the learned weights begin
    # Published: a pass over all images after each batch, which is half as many student
    # steps as there are batches in the mean.
    hop.update(rounds=20, steps=4, student_steps=40, bank_size=10240)
    hop.update(inner_steps=30, generator_learning_rate=1e-3, temperature=4.0)
    hop.learning_rate = 2e-3  # a fresh student, as downwards
    hop.weights.update(cross_entropy=1.0, batchnorm=0.0, adversarial=1.0, balance=0.0)
    hop.adversarial_mask = "none"
    parse_arg(config, arg)
    return config
