"""DFAD: student and generator play a minimax game over the distance of the logits.

Fang, Song, Shen, Wang, Chen and Song, "Data-free adversarial distillation", 2019
(https://arxiv.org/abs/1912.11006).

With `t = teacher(x)`, `s = student(x)` and `x = G(z)`:

    S minimises  mean |s - t|_1   in several steps, each on fresh images
    G maximises  mean |s - t|_1   in one step, after them

Differs from the published recipe:
- The student is trained with Adam and a cosine schedule (published: SGD, constant).
- Batch and budget are those of the config (published on MNIST: 512, 2,000 rounds of
  five student steps and one of the generator).
- The generator is ours: conditional, with a sigmoid output; its Adam has b1 = 0.5
  (published: 0.9).
- While the generator is trained, the student is in inference mode (published: in
  training mode, which makes a difference for nets with BatchNorm).
"""

import jax
import jax.numpy as jnp

from ecogen_jax import keys, losses
from ecogen_jax.nets.functional import Output
from ecogen_jax.relay.distillers import engine, live
from ecogen_jax.relay.distillers.base import (
    Distiller,
    Hop,
    HopState,
    Kind,
    Metrics,
)
from ecogen_jax.relay.ensemble import Teachers
from ecogen_jax.types import Key


def dfad(hop: Hop) -> Distiller:
    """Builds the distiller."""

    def loss(target: jax.Array, output: Output) -> jax.Array:
        return jnp.mean(losses.logit_distance(target, output.value))

    def source(state: HopState, received: Teachers, key: Key) -> jax.Array:
        return live.images(hop, state, received, key)

    study_fresh = live.study_fresh(hop, source, loss)

    def step(state: HopState, received: Teachers, key: Key) -> tuple[HopState, Metrics]:
        state, value = study_fresh(state, received, key)
        noise = keys.stream(key, "generator")
        state, made = live.train_generator(hop, state, received, noise, divergence="l1")
        return state, engine.metrics(state, made, value)

    return Distiller(engine.first_state(hop, engine.generator_adam(hop)), step)


DFAD = Kind(dfad, frozenset(("adversarial",)), one_generator=True)
