"""DeepInversion: the pixels themselves are optimised, without a generator.

Yin, Molchanov, Alvarez, Li, Mallya, Hoiem, Jha and Kautz, "Dreaming to distill:
data-free knowledge transfer via DeepInversion", CVPR 2020.

With target labels `y`, `t = teacher(x)`, `s = student(x)`, `x = sigmoid(v)` and `v`
drawn from N(0, 1), randomly shifted by up to two pixels in each step:

    v minimises  a CE(t, y) + b L_bn + c TV(x) - d JS(softmax(t / 3), softmax(s / 3))
    S minimises  T^2 KL(softmax(t / T) || softmax(s / T))   on the bank

The term with weight `d` is the adaptive form. One step of the hop optimises one batch
for all inner steps and keeps the state with the lowest loss.

Differs from the published recipe:
- Pixels are kept in [0, 1] by a sigmoid (published: free pixels, not clipped).
- Each image has its own shift, with edge padding (published: one roll for all). The
  shifted image is kept, as the teachers saw it.
- Adam has `b1 = 0.5`; the student's is Adam too (published: SGD). No weight decay of
  the pixels (published on CIFAR-10: 0). JS is not clamped, and its divergences are from
  each of the two to their mean (published code: in the other direction).
- The state with the lowest loss is kept, and TV is of pixels in [0, 1] (published code:
  the last state, since the copy of the best is a reference; TV of normalised pixels).
- Labels are drawn (published on CIFAR-10: all classes equally often).
- Batch and number of batches are those of the config (published: 256, about 1000; the
  student's part of the code was never published).
"""

import jax

from ecogen_jax import keys
from ecogen_jax.relay.augmentation import shifted
from ecogen_jax.relay.distillers import engine
from ecogen_jax.relay.distillers.base import (
    Distiller,
    Hop,
    HopState,
    Kind,
    Metrics,
)
from ecogen_jax.relay.distillers.labels import draw_labels
from ecogen_jax.relay.ensemble import Teachers
from ecogen_jax.types import Key

SHIFT = 2
"""Largest shift in pixels; published code, https://github.com/NVlabs/DeepInversion."""
TEMPERATURE = 3.0
"""Of the adaptive term; from the same."""


def deep_inversion(hop: Hop) -> Distiller:
    """Builds the distiller.

    The generator is not used and not changed.
    """
    study_bank = engine.study_bank(hop, engine.softened(hop))

    def step(state: HopState, received: Teachers, key: Key) -> tuple[HopState, Metrics]:
        batch = (hop.generation.batch_size, *hop.generation.shape)
        asked = keys.stream(key, "labels")
        _, made = engine.invert(
            _objective(
                hop,
                received,
                state,
                draw_labels(asked, received.weights, batch[0]),
            ),
            engine.generator_adam(hop),
            jax.random.normal(keys.stream(key, "pixels"), batch),
            keys.stream(key, "inversion"),
            steps=hop.generation.inner_steps,
        )
        state = engine.remember(hop, state, received, made, key)
        state, value = study_bank(state, received, key)
        return state, engine.metrics(state, made, value)

    return Distiller(engine.first_state(hop), step)


def _objective(
    hop: Hop, received: Teachers, state: HopState, labels: jax.Array
) -> engine.Objective:
    """Of the pixels before the sigmoid, `[batch, height, width, channels]`."""

    def objective(pixels: jax.Array, key: Key) -> tuple[jax.Array, engine.Made]:
        images = shifted(jax.nn.sigmoid(pixels), key, SHIFT)
        made = engine.judge(
            *(hop, received, state, images, labels),
            divergence="js",
            temperature=TEMPERATURE,
        )
        return engine.weighted(hop.generation.weights, made.terms), made

    return objective


DEEP_INVERSION = Kind(
    deep_inversion,
    frozenset(("cross_entropy", "batchnorm", "total_variation", "adversarial")),
    keeps_generator=False,
)
