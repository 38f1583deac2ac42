"""The residual nets have the published sizes, and compute what the papers define."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ecogen_jax.nets.functional import functional, num_params
from ecogen_jax.nets.residual import (
    RESIDUAL_NAMES,
    WIDE,
    PlainBlock,
    WideBlock,
    residual,
    wide_resnet,
)


def net(name, shape=(8, 8, 3)):
    return functional(
        lambda rngs: residual(name, shape=shape, num_classes=10, rngs=rngs)
    )


def block_params(inputs, outputs, norms):
    """Two 3x3 kernels, the shortcut's where channels change, and the BatchNorms."""
    projection = inputs * outputs if inputs != outputs else 0
    return 9 * outputs * (inputs + outputs) + projection + 2 * norms


def wide_params(depth, width, inputs=3, classes=10):
    last, total = 16, 9 * inputs * 16
    for outputs in (16 * width, 32 * width, 64 * width):
        for _ in range((depth - 4) // 6):
            total += block_params(last, outputs, norms=last + outputs)
            last = outputs
    return total + 2 * last + (last + 1) * classes


@pytest.mark.parametrize(
    ("name", "published"),
    [("wrn_16_1", 0.18e6), ("wrn_16_2", 0.7e6), ("wrn_40_2", 2.2e6)],
)
def test_wide_nets_have_the_published_size(name, published):
    count = num_params(net(name))
    assert count == wide_params(*WIDE[name])
    assert count == pytest.approx(published, rel=0.03)


def test_resnet8_has_the_size_that_its_layers_add_up_to():
    stages = block_params(16, 16, norms=2 * 16)
    stages += block_params(16, 32, norms=3 * 32) + block_params(32, 64, norms=3 * 64)
    assert num_params(net("resnet8")) == 9 * 3 * 16 + 2 * 16 + stages + 65 * 10 == 78042


@pytest.mark.parametrize("name", RESIDUAL_NAMES)
def test_activations_are_the_three_stages_and_the_features(name):
    made = net(name)
    images = jax.ShapeDtypeStruct((4, 9, 8, 3), jnp.float32)
    variables = jax.eval_shape(made.init, jax.random.key(0))
    output = jax.eval_shape(
        lambda v, x: made.apply(v, x, train=True), variables, images
    )
    width = WIDE.get(name, (8, 1))[1]
    assert output.value.shape == (4, 10)
    assert [a.shape for a in output.activations] == [
        (4, 9, 8, 16 * width),
        (4, 5, 4, 32 * width),
        (4, 3, 2, 64 * width),
        (4, 64 * width),
    ]
    assert jax.tree.structure(output.stats) == jax.tree.structure(variables.stats)
    assert jax.tree.structure(output.moments) == jax.tree.structure(variables.stats)


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1"])
def test_the_features_are_what_the_classifier_sees(name):
    made = net(name)
    variables = made.init(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (4, 8, 8, 3))
    output = jax.jit(lambda v, x: made.apply(v, x, train=True))(variables, images)
    classifier = variables.params["classifier"]
    logits = output.activations[-1] @ classifier["kernel"]
    np.testing.assert_allclose(
        output.value, logits + classifier["bias"].reshape(1, -1), rtol=1e-4, atol=1e-5
    )


def test_images_are_centred_before_the_first_convolution():
    made = net("resnet8")
    variables = made.init(jax.random.key(0))
    grey = jnp.full((2, 8, 8, 3), 0.5)
    output = jax.jit(lambda v, x: made.apply(v, x, train=True))(variables, grey)
    assert not np.any(output.moments["norm"]["mean"])


def zeroed(block, **chosen):
    """A block whose convolutions give zero, called on a map with both signs."""
    module = block(2, chosen.pop("outputs", 2), **chosen, rngs=nnx.Rngs(0))
    for layer in (module.conv1, module.conv2):
        layer.kernel.set_value(jnp.zeros_like(layer.kernel[...]))
    x = jnp.linspace(-1.0, 1.0, 32).reshape(1, 4, 4, 2)
    return module, x, nnx.jit(lambda m, x: m(x, train=False))(module, x)


def test_with_zero_convolutions_a_wide_block_is_the_identity():
    _, x, y = zeroed(WideBlock, stride=1)
    np.testing.assert_array_equal(y, x)


def test_with_zero_convolutions_a_plain_block_is_the_rectifier():
    _, x, y = zeroed(PlainBlock, stride=1)
    np.testing.assert_array_equal(y, jnp.maximum(x, 0))


def test_a_shortcut_that_changes_channels_projects_every_second_pixel():
    module, x, y = zeroed(WideBlock, outputs=3, stride=2)
    # At the start the running mean is 0 and the variance 1.
    active = jnp.maximum(x, 0)[:, ::2, ::2] / np.sqrt(1 + 1e-5)
    expected = jnp.einsum("bhwi,io->bhwo", active, module.shortcut.linear.kernel[...])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_every_parameter_of_a_wide_net_gets_a_gradient():
    made = net("wrn_16_1")
    variables = made.init(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (4, 8, 8, 3))

    @jax.jit
    def gradient(params):
        def loss(params):
            output = made.apply(variables.replace(params=params), images, train=True)
            return jnp.mean(jnp.square(output.value[:, 0] - 1))

        return jax.grad(loss)(params)

    norms = jax.tree.map(jnp.linalg.norm, gradient(variables.params))
    dead = [
        path for path, norm in jax.tree.leaves_with_path(norms) if not 0 < norm < 1e3
    ]
    assert dead == []


def test_a_depth_that_no_number_of_blocks_gives_is_refused():
    with pytest.raises(ValueError, match="depth is 17: allowed is 6 n"):
        wide_resnet(17, 1, inputs=3, num_classes=10, rngs=nnx.Rngs(0))


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no net 'resnet9'; allowed: resnet8"):
        residual("resnet9", shape=(8, 8, 3), num_classes=10, rngs=nnx.Rngs(0))
