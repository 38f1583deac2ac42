"""The conditional generator: image sizes, range, and what the label does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.nets.functional import Variables, num_params
from ecogen_jax.nets.generator import generator

LATENT = 6


def build(shape, num_classes=3):
    return generator(shape=shape, num_classes=num_classes, latent_size=LATENT, width=4)


@pytest.fixture(scope="module")
def tiny():
    """A generator of 8x8 images, its variables and its jitted inference."""
    net = build((8, 8, 1))
    infer = jax.jit(lambda v, z, y: net.apply(v, z, y, train=False).value)
    return net, jax.jit(net.init)(jax.random.key(0)), infer


@pytest.mark.parametrize(
    "shape", [(28, 28, 1), (32, 32, 3), (8, 8, 1), (16, 16, 1), (9, 7, 2)], ids=str
)
def test_images_have_the_shape_asked_for(shape):
    net = build(shape)

    def images(key, latent, labels):
        return net.apply(net.init(key), latent, labels, train=True).value

    made = jax.eval_shape(
        images, jax.random.key(0), jnp.zeros((5, LATENT)), jnp.zeros(5, jnp.int32)
    )
    assert made.shape == (5, *shape)
    assert made.dtype == jnp.float32


def test_images_fill_the_range_from_zero_to_one(tiny):
    net, variables, _ = tiny
    latent = 50 * jax.random.normal(jax.random.key(1), (64, LATENT))
    apply = jax.jit(net.apply, static_argnames="train")
    images = apply(variables, latent, jnp.arange(64) % 3, train=True).value
    assert jnp.min(images) >= 0
    assert jnp.max(images) <= 1
    assert jnp.min(images) < 0.2
    assert jnp.max(images) > 0.8


def test_a_generator_shows_no_activations(tiny):
    net, variables, _ = tiny
    output = jax.eval_shape(
        lambda z, y: net.apply(variables, z, y, train=False),
        jnp.zeros((2, LATENT)),
        jnp.zeros(2, jnp.int32),
    )
    assert output.activations == ()


def test_the_label_changes_its_own_image_and_no_other(tiny):
    _, variables, infer = tiny
    latent = jax.random.normal(jax.random.key(2), (3, LATENT))
    one = infer(variables, latent, jnp.asarray([0, 1, 2]))
    other = infer(variables, latent, jnp.asarray([0, 2, 2]))
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[2], other[2])
    assert jnp.max(jnp.abs(one[1] - other[1])) > 1e-3


def test_the_noise_changes_the_image(tiny):
    _, variables, infer = tiny
    latent = jax.random.normal(jax.random.key(3), (2, LATENT))
    images = infer(variables, latent, jnp.asarray([1, 1]))
    assert jnp.max(jnp.abs(images[0] - images[1])) > 1e-3


def test_every_parameter_gets_a_gradient(tiny):
    net, variables, _ = tiny
    latent = jax.random.normal(jax.random.key(4), (4, LATENT))

    def loss(params):
        made = net.apply(
            Variables(params, variables.stats),
            latent,
            jnp.asarray([0, 1, 2, 0]),
            train=True,
        )
        return jnp.sum(made.value * jnp.arange(64.0).reshape(1, 8, 8, 1))

    for grad in jax.tree.leaves(jax.jit(jax.grad(loss))(variables.params)):
        assert jnp.all(jnp.isfinite(grad))
        assert jnp.any(grad != 0)


def test_num_params_by_hand():
    project = (LATENT + 3 + 1) * 2 * 2 * 8
    kernels = 9 * (8 * 8 + 8 * 4 + 1 * 1)
    norms = 2 * (8 + 8 + 1 + 1)
    assert num_params(build((8, 8, 1))) == project + kernels + norms
