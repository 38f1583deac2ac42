"""NAYER-type: images from label codes through a noisy layer that is reinitialised.

Tran et al., "NAYER: Noisy layer data generation for efficient and effective data-free
knowledge distillation", CVPR 2024. The noise of an image of class `y` is

    z = W_r BN(e_y) + v_r,    W_r ~ N(0, 1) and v_r = 0 at the start of each batch,

where `e_y` is the code of the class and `W_r`, `v_r` the noisy layer of the batch's
`r`-th round of all classes. Layers, BatchNorm and generator take `inner_steps` Adam
steps together on

    L = b L_bn + a CE(t, y) - c mean_i 1[argmax t_i = argmax s_i] KL(p_i || q_i)

and the best batch goes into the bank. The layers are reinitialised for every batch, and
the generator every `LIFE` batches, which keeps the images diverse. The student is
distilled on the bank:

    S minimises  T^2 KL(softmax(t / T) || softmax(s / T))

Differs from the published recipe:

- The codes are orthonormal and random. The paper uses text embeddings of the class
  names from a vision-language model; here no outside knowledge is used.
- `z` is divided by the root of the code's size, so that it has the scale of the noise
  of the other methods.
- Generator: the conditional one of this project, which also gets the label. (Without
  it, as published, the BatchNorm that follows would cancel the scale of `z`.)
- Student: Adam with a cosine schedule instead of SGD at 0.2; a ring buffer of the
  newest images; one batch per step, without the published warm-up without adversarial
  term. Its batches are as large as the generator's (published: 512 and 400).
- If some class is unknown, a batch has more rounds than layers. Images that reuse a
  layer have normal noise added. (If only one class is known, the BatchNorm removes its
  code, so that the other images of a batch would be the same.)
- The EMA of the moments starts at the teacher's statistics and follows the kept batch
  (published: it starts with the first batch, whose loss is not damped, and follows the
  last inner step).
- No flips and no crops between generator and teachers; the student's images have those
  of the hop's section (`shift`, `flip`).
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

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
from ecogen_jax.types import Key, PyTree

LIFE = 20
"""Batches that a generator lives: ten epochs of two in the published scripts."""


class Codes(NamedTuple):
    """State of this method.

    Attributes:
      codes: of the classes, orthonormal rows, `[classes, size]`.
      norm: `scale` and `bias` of the BatchNorm after them, `[size]` each.
      batches: int32 scalar, how many were made.
    """

    codes: jax.Array
    norm: PyTree
    batches: jax.Array


def nayer(hop: Hop) -> Distiller:
    """Builds the distiller."""
    tx = engine.generator_adam(hop)
    study_bank = engine.study_bank(hop, engine.softened(hop))
    generation = hop.generation
    size = max(generation.num_classes, generation.latent_size)

    def init(
        taught: Variables, made: Variables, received: Teachers, key: Key
    ) -> HopState:
        codes = jax.random.orthogonal(keys.stream(key, "codes"), size)
        extra = Codes(
            codes[: generation.num_classes], _identity(size), jnp.zeros((), jnp.int32)
        )
        return engine.begin(hop, taught, made, received, extra=extra)

    def step(state: HopState, received: Teachers, key: Key) -> tuple[HopState, Metrics]:
        extra: Codes = state.extra
        labels, rounds = in_turn(received.weights, generation.batch_size, key)
        fresh = hop.generator.init(keys.stream(key, "generator")), _identity(size)
        current, norm = _of_this_life(fresh, state)
        layers = noisy_layers(hop, size, keys.stream(key, "layers"))
        spare = spare_noise(hop, keys.stream(key, "spare"))
        objective = inversion.objective(
            hop,
            received,
            state,
            labels,
            current.stats,
            latent=lambda params: latent(params, extra.codes[labels], rounds, spare),
        )
        params, made = engine.invert(
            objective,
            tx,
            {"generator": current.params, "norm": norm, "layers": layers},
            keys.stream(key, "inversion"),
            steps=generation.inner_steps,
        )
        state = replace(
            engine.remember(hop, state, received, made, key),
            generator=Variables(params["generator"], made.stats),
            extra=Codes(extra.codes, params["norm"], extra.batches + 1),
        )
        state, loss = study_bank(state, received, key)
        return state, engine.metrics(state, made, loss)

    return Distiller(init, step)


def _identity(size: int) -> PyTree:
    return {"scale": jnp.ones(size), "bias": jnp.zeros(size)}


def _of_this_life(fresh: tuple[Variables, PyTree], state: HopState) -> PyTree:
    """Generator and BatchNorm of a batch: those before it, or fresh ones."""
    reborn = state.extra.batches % LIFE == 0
    return jax.tree.map(
        lambda new, old: jnp.where(reborn, new, old),
        fresh,
        (state.generator, state.extra.norm),
    )


def in_turn(weights: jax.Array, batch: int, key: Key) -> tuple[jax.Array, jax.Array]:
    """Labels in rounds of all classes that some teacher knows, from a random class on.

    Args:
      weights: `[teachers, classes]`.
      batch: number of labels.
      key: draws the class that comes first.

    Returns:
      Labels and the number of their round, int32 `[batch]` each.
    """
    known = jnp.sum(weights, axis=0) > 0
    order = jnp.argsort(~known, stable=True).astype(jnp.int32)
    count = jnp.maximum(jnp.sum(known.astype(jnp.int32)), 1)
    turn = jnp.arange(batch, dtype=jnp.int32)
    first = jax.random.randint(keys.stream(key, "labels"), (), 0, count)
    return order[(turn + first) % count], turn // count


def noisy_layers(hop: Hop, size: int, key: Key) -> PyTree:
    """New layers, one for each round: `kernel [rounds, size, latent]` and `bias`.

    If some class is unknown there are more rounds, and layers are reused.
    """
    generation = hop.generation
    rounds = -(-generation.batch_size // generation.num_classes)
    return {
        "kernel": jax.random.normal(key, (rounds, size, generation.latent_size)),
        "bias": jnp.zeros((rounds, generation.latent_size)),
    }


def spare_noise(hop: Hop, key: Key) -> jax.Array:
    """Normal noise, `[batch, latent]`, added to images that reuse a layer."""
    generation = hop.generation
    return jax.random.normal(key, (generation.batch_size, generation.latent_size))


def latent(
    params: PyTree, codes: jax.Array, rounds: jax.Array, spare: jax.Array
) -> jax.Array:
    """The generator's noise, `[batch, latent]`.

    Args:
      params: `norm` and `layers`.
      codes: of each image's class, `[batch, size]`.
      rounds: of each image, `[batch]`.
      spare: from `spare_noise`; without it, such images would be duplicates.
    """
    mean, variance = jnp.mean(codes, 0, keepdims=True), jnp.var(codes, 0, keepdims=True)
    codes = (codes - mean) * jax.lax.rsqrt(variance + 1e-5)
    codes = codes * params["norm"]["scale"][None] + params["norm"]["bias"][None]
    kernel, bias = params["layers"]["kernel"], params["layers"]["bias"]
    # Products with a one-hot code, since a gather's gradient is slow on CPU.
    chosen = jax.nn.one_hot(rounds % len(kernel), len(kernel), dtype=codes.dtype)
    noise = jnp.einsum("br,rij,bi->bj", chosen, kernel, codes) + chosen @ bias
    again = (rounds >= len(kernel))[:, None]
    return noise / jnp.sqrt(codes.shape[1]) + jnp.where(again, spare, 0.0)


NAYER = Kind(nayer, frozenset(("cross_entropy", "batchnorm", "adversarial")))
