"""CMI: contrastive model inversion.

Fang et al., "Contrastive model inversion for data-free knowledge distillation", IJCAI
2021. For each batch a new generator and its noise take `inner_steps` Adam steps on

    L = b L_bn + a CE(t, y) - c mean_i 1[argmax t_i = argmax s_i] KL(p_i || q_i)
      + d InfoNCE(h(local view), h(whole image); h(memory))

and the best batch goes into the bank. `h` is a small head on the teachers' features of
an image, trained together with the generator; the memory holds the features of earlier
images. So an image has to differ from the others of its batch and from earlier ones.
The student is distilled on the bank:

    S minimises  T^2 KL(softmax(t / T) || softmax(s / T))

Differs from the published recipe:

- A teacher's features are the spatial means of its stages' activations and its last
  features, so that nets without BatchNorm have them too (published: the means of all
  BatchNorm inputs).
- The local view is a random crop of the image (a quarter of its area or more), resized
  to full size with unchanged aspect ratio; the other view is the image. No flips and no
  padded crops for the views; the student's images have those of the hop's section
  (`shift`, `flip`).
- The whole memory (4096) is used as negatives (published: 4096 drawn from 40,960). Only
  the batch's images are anchors, not those of the memory; the head has 128 outputs
  (the published script sets 256), and its Adam is reset for each batch.
- Student: Adam with a cosine schedule instead of SGD at 0.1; a ring buffer of the
  newest images, which starts empty (published: about 50,000 images inverted before).
- Generator: the conditional one of this project, which starts with larger kernels than
  the published N(0, 0.02). The head is trained by the same Adam, with b1 = 0.5.
- One batch size for generator and student, and the budget, are the config's.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ecogen_jax import keys, losses
from ecogen_jax.nets.functional import Net, Variables
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

# Temperature, memory and area are those of the published code.
TEMPERATURE = 0.1
HEAD_SIZE = 128
MEMORY_SIZE = 4096
LEAST_AREA = 0.25


class Contrast(NamedTuple):
    """State of this method, unless the weight of its term is 0.

    Attributes:
      head: parameters of `project`.
      memory: features of earlier images, `[MEMORY_SIZE, features]`.
      written: int32 scalar, how many were written so far.
    """

    head: PyTree
    memory: jax.Array
    written: jax.Array


def cmi(hop: Hop) -> Distiller:
    """Builds the distiller."""
    study_bank = engine.study_bank(hop, engine.softened(hop))

    def init(
        taught: Variables, made: Variables, received: Teachers, key: Key
    ) -> HopState:
        extra = None
        if hop.generation.weights.contrastive:
            extra = _first(hop, received, keys.stream(key, "head"))
        return engine.begin(hop, taught, made, received, extra=extra)

    def step(state: HopState, received: Teachers, key: Key) -> tuple[HopState, Metrics]:
        extra: Contrast | None = state.extra
        if extra is None:
            state, made, _ = inversion.from_scratch(hop, received, state, key)
        else:
            state, made, params = inversion.from_scratch(
                hop,
                received,
                state,
                key,
                more={"head": extra.head},
                terms=_contrast(hop, received, extra),
            )
            seen = features(hop.teachers, received, made.images)
            state = replace(state, extra=_remember(extra, params["head"], seen))
        state, loss = study_bank(state, received, key)
        return state, engine.metrics(state, made, loss)

    return Distiller(init, step)


def _first(hop: Hop, received: Teachers, key: Key) -> Contrast:
    image = jnp.zeros((1, *hop.generation.shape))
    size = jax.eval_shape(lambda: features(hop.teachers, received, image)).shape[1]
    hidden, last = jax.random.split(key)
    head = {
        "hidden": jax.random.normal(hidden, (size, size)) / jnp.sqrt(size),
        "hidden_bias": jnp.zeros(size),
        "last": jax.random.normal(last, (size, HEAD_SIZE)) / jnp.sqrt(size),
        "last_bias": jnp.zeros(HEAD_SIZE),
    }
    memory = jnp.zeros((MEMORY_SIZE, size))
    return Contrast(head, memory, jnp.zeros((), jnp.int32))


def _remember(extra: Contrast, head: PyTree, seen: jax.Array) -> Contrast:
    slots = (extra.written + jnp.arange(len(seen))) % MEMORY_SIZE
    memory = extra.memory.at[slots].set(seen)
    return Contrast(head, memory, extra.written + len(seen))


def _contrast(hop: Hop, received: Teachers, extra: Contrast) -> inversion.Terms:
    known = jnp.arange(MEMORY_SIZE) < extra.written

    def terms(params: PyTree, made: engine.Made, key: Key) -> Metrics:
        part = features(hop.teachers, received, cropped(made.images, key))
        whole = features(hop.teachers, received, jax.lax.stop_gradient(made.images))
        # Only the local view gets a gradient, as published; the others are its targets.
        still = jax.lax.stop_gradient(params["head"])
        value = losses.info_nce(
            project(params["head"], part),
            project(still, whole),
            project(still, extra.memory),
            known,
            temperature=TEMPERATURE,
        )
        return {"contrastive": value}

    return terms


def features(nets: Sequence[Net], received: Teachers, images: jax.Array) -> jax.Array:
    """Features of all teachers on images, `[batch, features]`."""

    def means(net: Net, variables: Variables) -> jax.Array:
        activations = net.apply(variables, images, train=False).activations
        flat = [jnp.mean(a, (1, 2)) if a.ndim == 4 else a for a in activations]
        return jnp.concatenate(flat, axis=-1)

    parts = []
    for net, group in zip(nets, received.groups, strict=True):
        members = jax.lax.map(lambda variables, net=net: means(net, variables), group)
        parts.append(jnp.moveaxis(members, 0, 1).reshape(len(images), -1))
    return jnp.concatenate(parts, axis=-1)


def project(head: PyTree, seen: jax.Array) -> jax.Array:
    """The head: `[n, features]` to unit vectors `[n, HEAD_SIZE]`."""
    hidden = jax.nn.relu(seen @ head["hidden"] + head["hidden_bias"][None])
    out = hidden @ head["last"] + head["last_bias"][None]
    # The floor keeps the gradient finite if the head outputs zero.
    norm = jnp.sum(jnp.square(out), axis=-1, keepdims=True) + 1e-12
    return out * jax.lax.rsqrt(norm)


def cropped(images: jax.Array, key: Key) -> jax.Array:
    """A random part of each image, enlarged to the size of the image (bilinearly)."""
    batch, height, width, _ = images.shape
    area, place = jax.random.split(key)
    side = jnp.sqrt(jax.random.uniform(area, (batch,), minval=LEAST_AREA))
    down, across = jax.random.uniform(place, (2, batch))
    rows, columns = _window(side, down, height), _window(side, across, width)
    return jnp.einsum("bij,bjkc,blk->bilc", rows, images, columns)


def _window(side: jax.Array, place: jax.Array, size: int) -> jax.Array:
    """Bilinear sampling of a window along one axis, as matrices `[batch, size, size]`.

    A product with it has a product as its gradient; a gather's would be a scatter.
    """
    pixels = jnp.arange(size, dtype=jnp.float32)
    offset = place * (1 - side) * size
    centres = (pixels[None] + 0.5) * side[:, None] + offset[:, None] - 0.5
    centres = jnp.clip(centres, 0.0, size - 1.0)
    return jnp.maximum(0.0, 1 - jnp.abs(centres[:, :, None] - pixels[None, None]))


CMI = Kind(cmi, frozenset(("cross_entropy", "batchnorm", "adversarial", "contrastive")))
