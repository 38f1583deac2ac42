"""Fast: a meta generator that needs only a few steps for each batch.

Fang et al., "Up to 100x faster data-free knowledge distillation", AAAI 2022. In each
step the meta generator is cloned, and the clone `g` and its noise `z` take
`inner_steps` Adam steps on

    L = b L_bn + a CE(t, y) - c mean_i 1[argmax t_i = argmax s_i] KL(p_i || q_i)

where `L_bn` compares an EMA of the batch moments (`batchnorm_momentum`). The
meta generator then moves as first-order MAML does, by Adam on the sum of the clone's
gradients, `sum_k dL/dg_k`. The student distils the bank:

    S minimises  T^2 KL(softmax(t / T) || softmax(s / T))

Differs from the published recipe:

- Student: Adam with a cosine schedule instead of SGD at 0.2; a ring buffer of the
  newest images. Its batches are as large as the generator's.
- Generator: the conditional one of this project. Its first layers are not reinitialised
  half-way, and there is no warm-up without adversarial term and student.
- The EMA of the moments starts at the teacher's statistics and follows the kept batch
  (published: it starts with the first batch, whose loss is not damped, and follows the
  last inner step).
- No flips and no crops between generator and teachers; the student's images have those
  of the hop's section (`shift`, `flip`).
"""

import jax
import jax.numpy as jnp
import optax

from ecogen_jax import keys
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.distillers import engine, inversion
from ecogen_jax.relay.distillers.base import (
    Distiller,
    Hop,
    HopState,
    Kind,
    Metrics,
)
from ecogen_jax.relay.ensemble import Teachers
from ecogen_jax.relay.optimizer import descend
from ecogen_jax.types import Key, PyTree

NOISE_LEARNING_RATE = 0.01
"""Of the noise, which learns faster than the generator: the published scripts for five
and for ten inner steps (0.015 for two)."""


def fast(hop: Hop) -> Distiller:
    """Builds the distiller."""
    inner, meta = summing(engine.generator_adam(hop)), meta_adam(hop)
    study_bank = engine.study_bank(hop, engine.softened(hop))
    # Adam's step size is the same for all, so larger units make the noise learn faster.
    unit = NOISE_LEARNING_RATE / hop.generation.learning_rate

    def init(
        taught: Variables, made: Variables, received: Teachers, key: Key
    ) -> HopState:
        del key  # unused: nothing is random
        return engine.begin(
            hop, taught, made, received, optimizer=meta.init(made.params)
        )

    def step(state: HopState, received: Teachers, key: Key) -> tuple[HopState, Metrics]:
        asked, before = engine.draw(hop, received, key), state.generator
        objective = inversion.objective(
            hop,
            received,
            state,
            asked.labels,
            before.stats,
            latent=lambda params: unit * params["latent"],
        )
        start = {
            "generator": before.params,
            "latent": asked.latent / unit,
            "total": jax.tree.map(jnp.zeros_like, before.params),
        }
        end, made = engine.invert(
            objective,
            inner,
            start,
            keys.stream(key, "inversion"),
            steps=hop.generation.inner_steps,
        )
        params, optimizer = descend(
            meta, end["total"], state.generator_optimizer, before.params
        )
        state = engine.remember(hop, state, received, made, key)
        state = engine.renewed(hop, state, params, made, optimizer)
        state, loss = study_bank(state, received, key)
        return state, engine.metrics(state, made, loss)

    return Distiller(init, step)


def meta_adam(hop: Hop) -> optax.GradientTransformation:
    """The meta generator's optimiser: `inner_steps` times the clone's rate."""
    rate = hop.generation.inner_steps * hop.generation.learning_rate
    generation = hop.generation._replace(learning_rate=rate)
    return engine.generator_adam(hop._replace(generation=generation))


def summing(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """`tx`, but the parameters `total` move by the gradients of `generator`.

    From zero, they end as the sum of those gradients over all steps.
    """

    def update(
        grads: PyTree, state: PyTree, params: PyTree | None = None
    ) -> tuple[PyTree, PyTree]:
        updates, state = tx.update(grads, state, params)
        return {**updates, "total": grads["generator"]}, state

    return optax.GradientTransformation(tx.init, update)


FAST = Kind(
    fast, frozenset(("cross_entropy", "batchnorm", "adversarial")), one_generator=True
)
