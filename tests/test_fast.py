"""Fast: the meta generator."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ecogen_jax import keys
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.distillers import engine
from ecogen_jax.relay.distillers.base import Weights
from ecogen_jax.relay.distillers.fast import NOISE_LEARNING_RATE
from tests import toy_inversion as toy

WEIGHTS = Weights(cross_entropy=1.0, batchnorm=0.5)


def by_hand(hop, received, state, key):
    """The clone's steps as published: two learning rates, gradients added up."""
    asked, rate = engine.draw(hop, received, key), hop.generation.learning_rate

    def loss(params):
        net, noise = params
        variables = Variables(net, state.generator.stats)
        output = hop.generator.apply(variables, noise, asked.labels, train=True)
        made = engine.judge(hop, received, state, output.value, asked.labels)
        value = engine.weighted(hop.generation.weights, made.terms)
        return value, (value, output.value)

    rates = rate, NOISE_LEARNING_RATE
    adams = [optax.adam(rate, b1=0.5) for rate in rates]
    params = [state.generator.params, asked.latent]
    states = [tx.init(part) for tx, part in zip(adams, params, strict=True)]
    total, tried = jax.tree.map(jnp.zeros_like, params[0]), []
    for _ in range(hop.generation.inner_steps):
        grads, made = jax.grad(loss, has_aux=True)(params)
        tried.append(made)
        total = jax.tree.map(jnp.add, total, grads[0])
        for i, tx in enumerate(adams):
            updates, states[i] = tx.update(grads[i], states[i])
            params[i] = optax.apply_updates(params[i], updates)
    return total, min(tried, key=lambda made: made[0])[1]


@pytest.mark.parametrize("inner_steps", [1, 4])
def test_the_meta_generator_follows_the_sum_of_the_clones_gradients(inner_steps):
    hop, received = toy.hop(WEIGHTS, inner_steps=inner_steps), toy.teachers()
    distiller, key = toy.build("fast", hop), jax.random.key(5)
    state = toy.begin(distiller, received)
    after, _ = toy.jitted(distiller)(state, received, key)
    with jax.numpy_dtype_promotion("standard"):
        total, best = by_hand(hop, received, state, key)
        meta = optax.adam(inner_steps * hop.generation.learning_rate, b1=0.5)
        updates, _ = meta.update(total, meta.init(total))
        want = optax.apply_updates(state.generator.params, updates)
    # The clone's sum itself, before Adam makes all steps alike: its first moment.
    moment = after.generator_optimizer[0].mu
    for name in want:
        np.testing.assert_allclose(moment[name], 0.5 * total[name], rtol=2e-3)
        np.testing.assert_allclose(after.generator.params[name], want[name], rtol=1e-3)
    images = np.asarray(after.bank.images[: toy.BATCH], np.float32)
    np.testing.assert_allclose(images, 255 * best, atol=1)


def test_the_meta_optimiser_lives_on():
    distiller, received = toy.build("fast", toy.hop(WEIGHTS)), toy.teachers()
    state, _ = toy.run(distiller, received, number=3)
    assert state.generator_optimizer[0].count == 3


def test_the_moments_move_once_a_step():
    momentum = 0.25
    given = toy.hop(WEIGHTS, batchnorm_momentum=momentum, inner_steps=3)
    distiller, received = toy.build("fast", given), toy.teachers()
    state = toy.begin(distiller, received)
    after, _ = toy.jitted(distiller)(state, received, keys.root(0))
    (old,), (new,) = state.moments, after.moments
    images = after.bank.images[: toy.BATCH].astype(jnp.float32) / 255
    teacher = jax.tree.map(lambda a: a[0], received.groups[0])
    batch = toy.TEACHER.apply(teacher, images, train=False).moments
    for part in ("mean", "var"):
        want = momentum * batch["norm"][part]
        want += (1 - momentum) * old["norm"][part][0]
        np.testing.assert_allclose(new["norm"][part][0], want, atol=2e-3)
