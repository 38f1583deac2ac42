"""The matrix product of linear layers: exact, and transposed where outputs are few."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.nets.dense import NARROW, matmul

OUTPUTS = (1, 10, NARROW, NARROW + 1, 62)


def arrays(outputs, *lead, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(*lead, 7, 33)).astype(np.float32)
    kernel = rng.normal(size=(*lead, 33, outputs)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(kernel)


def energy(product):
    return lambda x, kernel: jnp.sum(jnp.sin(product(x, kernel)))


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_value_and_gradients_are_those_of_the_plain_product(outputs):
    x, kernel = arrays(outputs)
    np.testing.assert_allclose(matmul(x, kernel), x @ kernel, rtol=1e-5, atol=1e-5)
    ours, plain = (
        jax.grad(energy(product), (0, 1))(x, kernel) for product in (matmul, jnp.matmul)
    )
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("outputs", [10, 62])
def test_gradients_of_gradients_and_under_vmap(outputs):
    x, kernel = arrays(outputs, 3)

    def second(product):
        def norm(x, kernel):
            grads = jax.grad(energy(product), (0, 1))(x, kernel)
            return sum(jnp.sum(jnp.square(each)) for each in grads)

        return jax.vmap(jax.grad(norm, (0, 1)))(x, kernel)

    for one, other in zip(second(matmul), second(jnp.matmul), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("outputs", "shape"), [(10, (10, 33)), (62, (33, 62))])
def test_the_gradient_of_a_narrow_kernel_is_made_transposed(outputs, shape):
    x, kernel = arrays(outputs)
    traced = jax.make_jaxpr(jax.grad(energy(matmul), 1))(x, kernel)
    products = [e for e in traced.eqns if e.primitive.name == "dot_general"]
    assert products[-1].outvars[0].aval.shape in (shape, shape[::-1])
    assert (products[-1].outvars[0].aval.shape == (10, 33)) == (outputs == 10)
