r"""DENSE (Zhang et al., NeurIPS 2022): one shot, five skewed devices.

Question: how much of an ensemble of skewed nets does this method keep, against `c1.py`?

    python scripts/train.py --config configs/hops/dense_oneshot.py
    python scripts/sweep.py --config configs/hops/dense_oneshot.py \
        --seeds 0,1,2,3,4 --grid data.alpha=0.1,0.3,0.5

Expected: 66.6, 76.5 and 95.8 % at alpha 0.1, 0.3 and 0.5 (published, with other nets).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import from_skewed_devices


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = from_skewed_devices("hops_dense_oneshot", "end>cloud")
    config.nets.update(cloud="cnn_medium", edge="cnn_medium", end="cnn_medium")
    hop = config.up_end_cloud
    hop.distiller = "dense"
    hop.teacher_weights = "equal"
    # Published: a pass over all images after each batch, which is half as many student
    # steps as there are batches in the mean.
    hop.update(rounds=20, steps=4, student_steps=40, bank_size=10240)
    hop.update(inner_steps=30, generator_learning_rate=1e-3, temperature=20.0)
    hop.learning_rate = 2e-3  # a fresh student, as downwards
    # 1.0 is published for the sum over the five clients; ours is the mean.
    hop.weights.update(cross_entropy=1.0, batchnorm=5.0, adversarial=1.0, balance=0.0)
    hop.adversarial_mask = "disagree"
    parse_arg(config, arg)
    return config
