"""The relay distiller: conditional generator, replay bank, fresh or warm student.

One step trains the generator once against the teachers and the student, writes its
images into the bank, and then takes several student steps on the bank:

    G minimises  a KL(y || t) + b L_bn + c L_adv + d L_balance + e L_one_hot + f L_act
    S minimises  T^2 KL(softmax(t / T) || softmax(s / T))

The parts are those that data-free distillation shares (see `ecogen_jax.losses` for
the equations): teacher cross-entropy and class balance (DAFL, Chen et al., ICCV 2019),
BatchNorm statistics (DeepInversion, Yin et al., CVPR 2020), adversarial disagreement
(ZSKT, Micaelli and Storkey, NeurIPS 2019; DFAD, Fang et al., 2019), and a bank of all
recent images (CMI, Fang et al., IJCAI 2021), here a ring buffer in device memory.

The target `y` of an image is a class, and then its term is the cross-entropy, or lies
between two classes (`two_classes`, see `labels`): images on which the teacher hesitates
show the student how like each other classes are. Soft targets are of ZSKD (Nayak et
al., "Zero-shot knowledge distillation in deep networks", ICML 2019), which draws them
from a Dirichlet distribution around the teacher's own class similarities.

Teachers may be an ensemble weighted by label counts (FedFTG, Zhang et al., CVPR 2022),
by learned weights (Co-Boosting, Dai et al., ICLR 2024), or combined class by class (see
`relay.ensemble`).

`python -m papers_repro.dfkd.reproduce --only ablation` prints an ablation of the parts
between LeNets on MNIST. Without the statistics term accuracy falls from 98 to 41 %. The
adversarial term has no measurable effect there if its mask keeps it to images on which
teacher and student agree (`adversarial_mask = "agree"`), and without the mask it harms
the student. The nets of the relay cycle have BatchNorm and use no mask; for them there
is no ablation.

On Fashion-MNIST, with about as many trials for each, Fast and NAYER end 0.1 and 0.2
points higher, which three seeds do not tell apart. Images between two classes were
worth 0.9 points there (95 % interval 0.4 to 1.5; `A4`).

Tried in short trials on validation, between LeNets without running feature statistics,
and left out: an adversarial term on logits (L1, as DFAD) or on the Jensen-Shannon
divergence instead of KL, and mixing images of the bank (mixup, cut and paste).
"""

from ecogen_jax import keys
from ecogen_jax.relay.distillers import engine
from ecogen_jax.relay.distillers.base import (
    Distiller,
    Hop,
    HopState,
    Kind,
    Metrics,
)
from ecogen_jax.relay.ensemble import Teachers
from ecogen_jax.types import Key


def relay(hop: Hop) -> Distiller:
    """Builds the distiller."""
    tx = engine.generator_adam(hop)
    study_bank = engine.study_bank(hop, engine.softened(hop))

    def step(state: HopState, received: Teachers, key: Key) -> tuple[HopState, Metrics]:
        params, optimizer, made = engine.improve(
            engine.fresh_images(hop, received, state),
            tx,
            state.generator.params,
            state.generator_optimizer,
            keys.stream(key, "generator"),
        )
        state = engine.remember(hop, state, received, made, key)
        state = engine.renewed(hop, state, params, made, optimizer)
        state, loss = study_bank(state, received, key)
        return state, engine.metrics(state, made, loss)

    return Distiller(engine.first_state(hop, tx), step)


RELAY = Kind(
    relay,
    frozenset(
        (
            "cross_entropy",
            "one_hot",
            "batchnorm",
            "activation",
            "adversarial",
            "balance",
        )
    ),
    one_generator=True,
    two_classes=True,
)
