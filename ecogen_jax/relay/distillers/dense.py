"""DENSE: one-shot federated distillation of an ensemble of clients.

Zhang et al., "DENSE: Data-free one-shot federated learning", NeurIPS 2022. With the
mean of the clients' logits `t`, student logits `s` and the labels `y` of a batch:

    G, z minimise  CE(t, y) + L_bn - mean_i 1[argmax t_i != argmax s_i] KL(p_i || q_i)
    S minimises    T^2 KL(softmax(t / T) || softmax(s / T))  over all images so far

The generator is new for each batch. Its adversarial term acts on images on which
teacher and student already disagree, near the border between classes: the opposite of
CMI's mask.

Differs from the published recipe:

- Student: Adam with a cosine schedule instead of SGD at 0.005 to 0.01; steps on random
  batches of the bank instead of passes over all images; the bank keeps the newest
  `bank_size` images.
- Generator: the conditional one of this project, which starts with larger kernels than
  the published N(0, 0.02), so that a step of the same rate turns them less: the
  published rate is too small here. No flips and no crops between generator and
  teachers; the student's images have those of the hop's section (`shift`, `flip`).
- One batch size for generator and student, and the budget, are the config's.
- `L_bn` is averaged over the clients; the published code sums. For the published loss,
  multiply the published weight by the number of clients
  (`configs/federated/dense.py`).
- The plain ensemble is the setting `teacher_weights = "equal"`.
"""

from ecogen_jax.relay.distillers import engine, inversion
from ecogen_jax.relay.distillers.base import (
    Distiller,
    Hop,
    HopState,
    Kind,
    Metrics,
)
from ecogen_jax.relay.ensemble import Teachers
from ecogen_jax.types import Key


def dense(hop: Hop) -> Distiller:
    """Builds the distiller."""
    study_bank = engine.study_bank(hop, engine.softened(hop))

    def step(state: HopState, received: Teachers, key: Key) -> tuple[HopState, Metrics]:
        state, made, _ = inversion.from_scratch(hop, received, state, key)
        state, loss = study_bank(state, received, key)
        return state, engine.metrics(state, made, loss)

    return Distiller(engine.first_state(hop), step)


DENSE = Kind(dense, frozenset(("cross_entropy", "batchnorm", "adversarial")))
