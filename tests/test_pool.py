"""Pooling by slices is the window reduction, value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ecogen_jax.nets.pool import global_average, max_pool


def reference(x, size):
    sides = (1, size, size, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, sides, sides, "VALID")


@pytest.mark.parametrize("shape", [(2, 6, 4, 3), (1, 7, 5, 2)], ids=str)
@pytest.mark.parametrize("size", [2, 3])
def test_value_and_gradient_are_those_of_the_window_reduction(size, shape):
    # A permutation has no ties, where a maximum has no gradient.
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.permutation(np.prod(shape)).reshape(shape), jnp.float32)
    value = reference(x, size)
    weights = jnp.asarray(rng.normal(size=value.shape), jnp.float32)
    np.testing.assert_allclose(max_pool(x, size), value, rtol=1e-6)
    grads = [
        jax.grad(lambda x, fn=fn: jnp.sum(fn(x, size) * weights))(x)
        for fn in (max_pool, reference)
    ]
    np.testing.assert_allclose(*grads, rtol=1e-6, atol=1e-6)


def test_equal_largest_values_share_the_gradient():
    x = jnp.asarray([[3.0, 3.0], [3.0, 3.0]]).reshape(1, 2, 2, 1)
    grad = jax.grad(lambda x: jnp.sum(max_pool(x)))(x)
    np.testing.assert_allclose(grad, 0.25)


def test_blocks_larger_than_the_image_are_refused():
    with pytest.raises(ValueError, match="by 3 needs images of at least 3x3, got 2x4"):
        max_pool(jnp.zeros((1, 2, 4, 1)), 3)


def test_the_global_average_is_the_mean_over_positions():
    x = jnp.arange(12.0).reshape(1, 3, 2, 2)
    np.testing.assert_allclose(global_average(x), [[5.0, 6.0]])
