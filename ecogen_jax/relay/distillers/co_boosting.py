"""Co-Boosting: harder images and a better ensemble, each made with the other.

Dai et al., "Enhancing one-shot federated learning through data and ensemble
co-boosting", ICLR 2024. With the ensemble's logits `t = sum_k w_k t_k`, its softmax `p`
and a new generator for each batch:

    G, z minimise  mean_i (1 - p_i[y_i]) CE(t_i, y_i) - 3^2 KL(p^(3) || q^(3))
    w moves        after each batch, see `learned_weights`
    S minimises    T^2 KL(softmax(t(x') / T) || softmax(s(x') / T))

where `p^(3)` and `q^(3)` have temperature 3, and an image is perturbed in the direction
in which the ensemble's output changes most along a random `u ~ U(-1, 1)^classes` (ODS:
Tashiro et al., NeurIPS 2020),

    x' = x + 8/255 sign(d/dx u . softmax(t(x) / 4))

Differs from the published recipe:

- The weights, see `learned_weights`, start at the hop's `teacher_weights` (published:
  equal).
- Perturbed images are clipped to [0, 1], and 8/255 is in units of [0, 1].
- Student: Adam with a cosine schedule instead of SGD at 0.01 with momentum, weight
  decay and gradients clipped at norm 10; a ring buffer of the newest images.
- Generator: the conditional one of this project, which starts with larger kernels than
  the published N(0, 0.02), so that a step of the same rate turns them less: the
  published rate is too small here. Gradients are not clipped, since Adam rescales them
  anyway.
- One batch size for generator and student, and the budget, are the config's.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp

from ecogen_jax import keys, losses
from ecogen_jax.nets.classifier import to_unit
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay import bank as banks
from ecogen_jax.relay.augmentation import augmented
from ecogen_jax.relay.distillers import engine, inversion, learned_weights
from ecogen_jax.relay.distillers.base import (
    Distiller,
    Hop,
    HopState,
    Kind,
    Metrics,
)
from ecogen_jax.relay.ensemble import Teachers, ensemble
from ecogen_jax.types import Key, PyTree

# The constants are the defaults of the published code.
ADVERSARIAL_TEMPERATURE = 3.0
PUSH, PUSH_TEMPERATURE = 8 / 255, 4.0


def co_boosting(hop: Hop) -> Distiller:
    """Builds the distiller."""

    def init(
        taught: Variables, made: Variables, received: Teachers, key: Key
    ) -> HopState:
        del key  # unused: nothing is random
        return engine.begin(
            hop, taught, made, received, extra=learned_weights.first(received)
        )

    def step(state: HopState, received: Teachers, key: Key) -> tuple[HopState, Metrics]:
        learned: learned_weights.Learned = state.extra
        state, made, _ = inversion.from_scratch(
            hop,
            learned_weights.heard(received, learned),
            state,
            key,
            terms=_hard,
            temperature=ADVERSARIAL_TEMPERATURE,
        )
        drawn = keys.stream(key, "weights")
        learned = learned_weights.moved(hop, received, learned, state.bank, drawn)
        state = replace(state, extra=learned)
        told = learned_weights.heard(received, learned)
        state, loss = study_pushed(hop, told, state, key)
        return state, engine.metrics(state, made, loss)

    return Distiller(init, step)


def _hard(params: PyTree, made: engine.Made, key: Key) -> Metrics:
    return {"cross_entropy": losses.hard_cross_entropy(made.logits, made.labels)}


def study_pushed(
    hop: Hop, received: Teachers, state: HopState, key: Key
) -> tuple[HopState, jax.Array]:
    """The student's steps on perturbed images of the bank, and the mean loss."""
    loss, generation = engine.softened(hop), hop.generation

    def one(state: HopState, key: Key) -> tuple[HopState, jax.Array]:
        stored, labels, _ = banks.sample(state.bank, key, generation.batch_size)
        images = augmented(to_unit(stored), key, generation.augmentation)
        images = pushed(hop, received, images, labels, keys.stream(key, "push"))
        target = ensemble(hop.teachers, received, images, labels).logits
        return engine.teach(hop, state, images, lambda output: loss(target, output))

    stream = jax.random.split(keys.stream(key, "student"), hop.study.steps)
    state, values = jax.lax.scan(one, state, stream)
    return state, jnp.mean(values)


def pushed(
    hop: Hop,
    received: Teachers,
    images: jax.Array,
    labels: jax.Array,
    key: Key,
) -> jax.Array:
    """Images perturbed by `PUSH` to change the ensemble's softmax most, in [0, 1]."""
    classes = hop.generation.num_classes
    direction = jax.random.uniform(key, (len(images), classes), minval=-1.0)

    def answer(images: jax.Array) -> jax.Array:
        logits = ensemble(hop.teachers, received, images, labels).logits
        return jnp.sum(direction * jax.nn.softmax(logits / PUSH_TEMPERATURE))

    moved = images + PUSH * jnp.sign(jax.grad(answer)(images))
    return jnp.clip(moved, 0.0, 1.0)


CO_BOOSTING = Kind(
    co_boosting,
    frozenset(("cross_entropy", "batchnorm", "adversarial")),
    learns_weights=True,
    reads_logits=False,  # the teachers are evaluated on perturbed images
)
