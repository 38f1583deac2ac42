"""Adam with its schedule, under strict promotion."""

import jax
import jax.numpy as jnp
import numpy as np

from ecogen_jax.relay.optimizer import adam, descend


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
