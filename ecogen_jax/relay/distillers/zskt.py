"""ZSKT: the generator makes images on which student and teacher differ.

Micaelli and Storkey, "Zero-shot knowledge transfer via adversarial belief matching",
NeurIPS 2019. Attention is that of Zagoruyko and Komodakis, ICLR 2017.

With `t = teacher(x)`, `s = student(x)`, `x = G(z)` and attention maps `A_l` of each
stage (see `losses.attention`):

    G maximises  KL(softmax(t) || softmax(s))
    S minimises  T^2 KL(softmax(t / T) || softmax(s / T))
                 + b sum_l mean (A_l(t) / |A_l(t)| - A_l(s) / |A_l(s)|)^2

One step of G, then several of S on the same noise, with the generator after its step.
Gradients of both are clipped to the same norm.

Differs from the published recipe:
- The published code averages the KL over classes too. Here it is summed over them, so
  `b` and the clipping norm are larger by the number of classes: 250 is 2500 for ten.
- The generator is ours: conditional, with a sigmoid output, and its learning rate is
  constant (published: a cosine schedule, and no sigmoid). The student's schedule ends
  at 2 % (published: at 0).
- While the generator is trained, the student is in inference mode (published: in
  training mode, which makes a difference for nets with BatchNorm); Adam of the
  generator has b1 = 0.5 (published: 0.9).
- The budget is that of the config (published on CIFAR-10: 80,000 batches of 128).
- Several teachers are possible if the weight of attention is 0.
"""

import jax

from ecogen_jax import keys, losses
from ecogen_jax.nets.functional import Output, Variables
from ecogen_jax.relay.distillers import engine, live
from ecogen_jax.relay.distillers.base import (
    Distiller,
    Hop,
    HopState,
    Kind,
    Metrics,
)
from ecogen_jax.relay.ensemble import Teachers, ensemble
from ecogen_jax.types import Key, PyTree

CLIP = 5.0
"""Largest norm of a gradient, for a KL that is averaged over classes: published code,
https://github.com/polo5/ZeroShotKnowledgeTransfer (`solver.py`)."""


def zskt(hop: Hop) -> Distiller:
    """Builds the distiller."""
    hop = hop._replace(clip=CLIP * hop.generation.num_classes)

    def step(state: HopState, received: Teachers, key: Key) -> tuple[HopState, Metrics]:
        def answer(images: jax.Array) -> PyTree:
            return _answer(hop, received, images)

        noise = keys.stream(key, "generator")
        state, made = live.train_generator(hop, state, received, noise)
        images = live.images(hop, state, received, noise)
        state, value = live.study_batch(hop, state, key, images, answer, _loss(hop))
        return state, engine.metrics(state, made, value)

    return Distiller(engine.first_state(hop, engine.generator_adam(hop)), step)


def _answer(hop: Hop, received: Teachers, images: jax.Array) -> PyTree:
    """The teachers' logits, and the stage maps of the only one where they are used."""
    if not hop.generation.weights.attention:
        return ensemble(hop.teachers, received, images).logits, ()
    output = hop.teachers[0].apply(_only(received), images, train=False)
    return output.value, output.activations[:-1]


def _only(received: Teachers) -> Variables:
    members = [jax.tree.leaves(group.params)[0].shape[0] for group in received.groups]
    if members != [1]:
        raise ValueError(
            f"attention is that of one teacher, and this hop has {sum(members)}: "
            "set weights.attention to 0, or give the hop a single teacher"
        )
    return jax.tree.map(lambda a: a[0], received.groups[0])


def _loss(hop: Hop) -> live.Loss:
    weight, softened = hop.generation.weights.attention, engine.softened(hop)

    def loss(target: PyTree, output: Output) -> jax.Array:
        logits, maps = target
        value = softened(logits, output)
        if not weight:
            return value
        return value + weight * losses.attention(maps, output.activations[:-1])

    return loss


ZSKT = Kind(zskt, frozenset(("adversarial", "attention")), one_generator=True)
