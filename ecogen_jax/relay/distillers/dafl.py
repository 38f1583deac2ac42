"""DAFL: a generator whose images look like data to the teacher; no adversarial term.

Chen, Wang, Xu, Yang, Liu, Shi, Xu, Xu and Tian, "Data-free learning of student
networks", ICCV 2019.

With `t = teacher(x)`, `s = student(x)`, `p = softmax(t)`, `x = G(z)` and features `f`
before the teacher's last layer:

    G minimises  a CE(t, argmax t) - b mean |f| + c sum_c m_c log m_c,  m = mean_i p_i
    S minimises  T^2 KL(softmax(t / T) || softmax(s / T))  on the same images

Differs from the published recipe:
- The student learns with Adam whose rate falls by a cosine (published: SGD on
  CIFAR-10), the generator with Adam at a constant rate and `b1` of 0.5.
- Batch and budget are those of the config (published on MNIST: 512, 24,000 steps).
- The generator is ours: conditional, with a sigmoid output.
- The balance uses the natural logarithm: the published weight 5 for log10 is 2.17 here.
- There may be several student steps per batch, and several teachers.
"""

import jax

from ecogen_jax import keys
from ecogen_jax.relay.distillers import engine, live
from ecogen_jax.relay.distillers.base import (
    Distiller,
    Hop,
    HopState,
    Kind,
    Metrics,
)
from ecogen_jax.relay.ensemble import Teachers, ensemble
from ecogen_jax.types import Key


def dafl(hop: Hop) -> Distiller:
    """Builds the distiller."""
    loss = engine.softened(hop)

    def step(state: HopState, received: Teachers, key: Key) -> tuple[HopState, Metrics]:
        def answer(images: jax.Array) -> jax.Array:
            return ensemble(hop.teachers, received, images).logits

        noise = keys.stream(key, "generator")
        state, made = live.train_generator(hop, state, received, noise)
        state, value = live.study_batch(hop, state, key, made.images, answer, loss)
        return state, engine.metrics(state, made, value)

    return Distiller(engine.first_state(hop, engine.generator_adam(hop)), step)


DAFL = Kind(dafl, frozenset(("one_hot", "activation", "balance")), one_generator=True)
