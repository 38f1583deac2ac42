"""DFQ: adversarial images that the teacher's BatchNorm statistics keep near the data.

Choi, Choi, El-Khamy and Lee, "Data-free network quantization with adversarial
knowledge distillation", CVPR Workshops 2020; as a distiller of full-precision nets it
is the baseline of CMI (Fang et al., IJCAI 2021).

With `t = teacher(x)`, `s = student(x)`, `p = softmax(t)` and `x = G(z)`:

    G minimises  -a KL(softmax(t) || softmax(s)) + b L_bn + c CE(t, argmax t)
                 + d sum_c m_c log m_c,  m = mean_i p_i
    S minimises  T^2 KL(softmax(t / T) || softmax(s / T))   on fresh images

Differs from the published recipe:
- The student is trained with Adam and a cosine schedule (published: SGD). Batch size
  and budget are those of the config (published: 256, 8,000 generator steps with ten
  student steps each).
- The generator is ours: conditional. The student is in inference mode while images are
  judged (published: in training mode).
- `T` is 1 in the config, as in effect in the published code, which sets 20 and then
  overwrites it.
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
from ecogen_jax.relay.ensemble import Teachers
from ecogen_jax.types import Key


def dfq(hop: Hop) -> Distiller:
    """Builds the distiller."""

    def source(state: HopState, received: Teachers, key: Key) -> jax.Array:
        return live.images(hop, state, received, key)

    study_fresh = live.study_fresh(hop, source, engine.softened(hop))

    def step(state: HopState, received: Teachers, key: Key) -> tuple[HopState, Metrics]:
        noise = keys.stream(key, "generator")
        state, made = live.train_generator(hop, state, received, noise)
        state, value = study_fresh(state, received, key)
        return state, engine.metrics(state, made, value)

    return Distiller(engine.first_state(hop, engine.generator_adam(hop)), step)


DFQ = Kind(
    dfq,
    frozenset(("adversarial", "batchnorm", "one_hot", "balance")),
    one_generator=True,
)
