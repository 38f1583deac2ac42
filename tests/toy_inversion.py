"""Hops of a few numbers, for the methods that train a batch to its end."""

import functools

import jax
import jax.numpy as jnp

from ecogen_jax.relay.augmentation import NONE
from ecogen_jax.relay.distillers import DISTILLERS
from ecogen_jax.relay.distillers.base import Generation, Hop, Study, Weights
from ecogen_jax.relay.ensemble import Teachers
from tests import toy_nets

STUDENT, TEACHER = toy_nets.classifier(5), toy_nets.classifier(6)
GENERATOR = toy_nets.generator()
BATCH, BANK = 12, 48
ASKED = Weights(cross_entropy=1.0)
ADVERSARIAL = Weights(adversarial=1.0)


@functools.cache
def hop(weights=ASKED, *, study_steps=3, temperature=2.0, **changes):
    """A hop's nets and sizes; `changes` are fields of `Generation`."""
    generation = Generation(
        shape=toy_nets.SHAPE,
        num_classes=toy_nets.CLASSES,
        latent_size=toy_nets.LATENT,
        batch_size=BATCH,
        bank_size=BANK,
        learning_rate=0.05,
        weights=weights,
        adversarial_mask="none",
        inner_steps=2,
        batchnorm_momentum=1.0,
        augmentation=NONE,
    )._replace(**changes)
    study = Study(
        steps=study_steps,
        total_steps=600,
        learning_rate=0.02,
        temperature=temperature,
        keep_statistics=False,
    )
    return Hop(STUDENT, (TEACHER,), GENERATOR, generation, study)


@functools.cache
def build(name, given):
    """The distiller of that name."""
    return DISTILLERS[name].build(given)


@functools.cache
def teachers(number=1):
    """Teachers that know all classes, heard alike."""
    group = jax.vmap(TEACHER.init)(jax.random.split(jax.random.key(7), number))
    # Sharp logits, so that there is something to learn.
    params = {**group.params, "second": 4 * group.params["second"]}
    weights = jnp.full((number, toy_nets.CLASSES), 1 / number)
    return Teachers((group.replace(params=params),), weights)


def begin(distiller, received, seed=0):
    """A hop's first state."""

    def init(key):
        first, second, third = jax.random.split(key, 3)
        student, generator = STUDENT.init(first), GENERATOR.init(second)
        return distiller.init(student, generator, received, third)

    return jax.jit(init)(jax.random.key(seed))


@functools.cache
def jitted(distiller):
    """Its step, compiled once for all tests."""
    return jax.jit(distiller.step)


def run(distiller, received, *, number=2, seed=3):
    """The state after some steps from the first, and the last metrics."""
    state = begin(distiller, received)
    for key in jax.random.split(jax.random.key(seed), number):
        state, metrics = jitted(distiller)(state, received, key)
    return state, metrics
