"""Adam with its schedule, under strict promotion."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ecogen_jax.relay.optimizer import adam, clipped, descend


def run(steps, total_steps):
    """Steps down a slope of constant gradients 3 and -0.5: Adam moves by its rate."""
    tx = adam(0.1, total_steps=total_steps)
    params = {"a": jnp.asarray([1.0]), "b": jnp.asarray([1.0])}
    grads = {"a": jnp.asarray([3.0]), "b": jnp.asarray([-0.5])}

    def step(carry, _):
        params, state = descend(tx, grads, carry[1], carry[0])
        return (params, state), params

    _, seen = jax.jit(
        lambda p: jax.lax.scan(step, (p, tx.init(p)), None, length=steps)
    )(params)
    return jax.tree.map(lambda p: np.diff(p[:, 0], prepend=1.0), seen)


def test_the_rate_falls_by_a_cosine_to_a_fiftieth_and_stays_there():
    moves = run(steps=14, total_steps=10)
    share = np.minimum(np.arange(14) / 10, 1)
    rate = 0.1 * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * share)))
    np.testing.assert_allclose(moves["a"], -rate, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(moves["b"], rate, rtol=1e-3, atol=1e-6)


def test_promotion_is_strict_again_afterwards():
    run(steps=1, total_steps=2)
    assert jax.config.jax_numpy_dtype_promotion == "strict"


@pytest.mark.parametrize(("most", "factor"), [(1.0, 0.2), (5.0, 1.0), (0.0, 1.0)])
def test_gradients_are_cut_to_a_norm_over_all_leaves(most, factor):
    tx = clipped(optax.sgd(1.0), most)
    params = {"a": jnp.asarray([1.0]), "b": jnp.asarray([1.0])}
    grads = {"a": jnp.asarray([3.0]), "b": jnp.asarray([-4.0])}  # a norm of 5
    after, _ = descend(tx, grads, tx.init(params), params)
    np.testing.assert_allclose(after["a"], 1 - 3 * factor, rtol=1e-5)
    np.testing.assert_allclose(after["b"], 1 + 4 * factor, rtol=1e-5)
