"""DENSE in rounds: the devices' ensemble is distilled into their average.

Question: what does a one-shot method add to `fedavg.py` if it runs in every round?

    python scripts/train.py --config configs/federated/dense.py
    python scripts/sweep.py --config configs/federated/dense.py --seeds 0,1,2

Result: after six rounds between 1.2 points below and 1.7 above `fedavg.py`, after 60
between 0.5 and 10.5 below it (means over three seeds, without intervals; `B4.ranking`
in `papers_repro/fedgen/`). Expected: better in the first rounds.
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import federated


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = federated("federated_dense", "dense_rounds")
    config.generator.width = 8
    hop = config.up_end_cloud
    hop.distiller = "dense"
    hop.teacher_weights = "equal"
    # One batch of images per round; the bank holds those of the newest 32 rounds.
    hop.update(rounds=1, steps=1, student_steps=20, batch_size=64, bank_size=2048)
    hop.update(inner_steps=30, generator_learning_rate=1e-3, temperature=20.0)
    hop.learning_rate = 5e-4  # the student has been trained by the devices
    # Published: 1.0, for the sum over the ten devices. Ours is the mean.
    hop.weights.update(cross_entropy=1.0, batchnorm=10.0, adversarial=1.0, balance=0.0)
    hop.adversarial_mask = "disagree"
    parse_arg(config, arg)
    return config
