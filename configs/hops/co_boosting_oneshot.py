r"""Co-Boosting (Dai et al., ICLR 2024): one shot, five skewed devices.

Question: how much of an ensemble of skewed nets does this method keep, against `c1.py`?

    python scripts/train.py --config configs/hops/co_boosting_oneshot.py
    python scripts/sweep.py --config configs/hops/co_boosting_oneshot.py \
        --seeds 0,1,2,3,4 --grid data.alpha=0.1,0.3,0.5

Expected: above `dense_oneshot.py` (published on CIFAR-10, ten clients, alpha 0.1: 57.1
against 47.8 %). Came out far below it (`C1` in `papers_repro/dfkd/`).

Chosen by the best of five trials on validation images, seed 0, alpha 0.1, eight rounds:
the generator's rate, which is published for another generator, beside the adversary's
weight. With weight 1.0, 1e-2 gave 28.2 %, 3e-2 44.3 and 1e-1, the largest tried, 48.1;
3e-2 with weight 0.1 gave 41.7, and 1e-1 with weight 0.03 26.4. As published (1e-3) 20
rounds ended at 28.8. The curves jump by ten points from round to round. To make one:

    python scripts/train.py --config configs/hops/co_boosting_oneshot.py \
        --config.mesh.num_devices=1 --config.up_end_cloud.generator_learning_rate=3e-2
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
    # Eight rounds are 5.4 TFLOP; those of c1.py have 2.5.
    hop.update(rounds=8, steps=4, student_steps=40, bank_size=10240)
    hop.update(inner_steps=30, generator_learning_rate=1e-1, temperature=4.0)
    hop.learning_rate = 2e-3  # a fresh student, as downwards
    hop.weights.update(cross_entropy=1.0, batchnorm=0.0, adversarial=1.0, balance=0.0)
    hop.adversarial_mask = "none"
    parse_arg(config, arg)
    return config
