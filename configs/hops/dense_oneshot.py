r"""DENSE (Zhang et al., NeurIPS 2022): one shot, five non-IID devices.

Question: how much of a non-IID ensemble's accuracy does this method keep, against
`c1.py`?

    python scripts/train.py --config configs/hops/dense_oneshot.py
    python scripts/sweep.py --config configs/hops/dense_oneshot.py \
        --seeds 0,1,2,3,4 --grid data.alpha=0.1,0.3,0.5

Expected: 66.6, 76.5 and 95.8 % at alpha 0.1, 0.3 and 0.5 (published, with other nets).
Result: above the first and the second, below the last (`C1` in `papers_repro/dense/`).

The generator's learning rate, which is published for another generator with another
initialisation, and the weight of the statistics term, which is published for a sum over
clients, are chosen by the best of five trials on validation images (seed 0, alpha 0.1,
eight rounds). Rate 1e-2 with weight 5.0 gave 36.3 %, 1e-2 with 0.5 42.1, 3e-2 with 0.5
55.2, 3e-2 with 2.0 50.9, and 1e-1, the largest rate tried, with 0.5 66.2. With the
published values (1e-3, 5.0) the generator finds no good images in its 30 steps, and 20
rounds ended at 22.3. To repeat one trial:

    python scripts/train.py --config configs/hops/dense_oneshot.py \
        --config.mesh.num_devices=1 --config.up_end_cloud.generator_learning_rate=3e-2
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
    # Published: one pass over all images so far after each batch. On average over the
    # hop, that is half as many student steps per batch as there are batches.
    # Eight rounds are 3.6 TFLOP; the rounds of c1.py have 2.5.
    hop.update(rounds=8, steps=4, student_steps=40, bank_size=10240)
    hop.update(inner_steps=30, generator_learning_rate=1e-1, temperature=20.0)
    hop.learning_rate = 2e-3  # the student starts from scratch, as downwards
    hop.weights.update(cross_entropy=1.0, batchnorm=0.5, adversarial=1.0, balance=0.0)
    hop.adversarial_mask = "disagree"
    parse_arg(config, arg)
    return config
