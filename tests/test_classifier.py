"""The classifiers by name: their sizes by formula, and what each gives out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.nets.classifier import (
    CLASSIFIERS,
    LENETS,
    classifier,
    to_bytes,
    to_unit,
)
from ecogen_jax.nets.functional import Variables, num_params
from ecogen_jax.nets.latent import latent_generator

MNIST = (28, 28, 1)


@pytest.mark.parametrize(
    ("name", "first", "second", "hidden"),
    [
        ("cnn_small", 8, 16, 32),
        ("cnn_medium", 16, 32, 64),
        ("cnn_large", 32, 64, 128),
    ],
)
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (9, 8, 2)])
def test_num_params_of_the_classifiers(name, first, second, hidden, shape):
    height, width, channels = shape
    flat = -(-height // 4) * -(-width // 4) * second
    kernels = 9 * channels * first + 9 * first * second + flat * hidden
    norms = 2 * (first + second + hidden)
    net = classifier(name, shape=shape, num_classes=10)
    assert num_params(net) == kernels + norms + 10 * hidden + 10


@pytest.mark.parametrize("net", ["cnn_fedgen", "generator"])
def test_nets_of_fedgen_start_as_in_pytorch(net):
    if net == "generator":
        made = latent_generator(features=32, num_classes=10, noise_size=32)
    else:
        made = classifier(net, shape=MNIST, num_classes=10)
    params = made.init(jax.random.key(0)).params
    for name, layer in params.items():
        if "kernel" not in layer:  # BatchNorm
            continue
        bound = np.prod(layer["kernel"].shape[:-1]) ** -0.5
        for leaf in layer.values():
            assert 0.8 * bound < np.abs(leaf).max() <= bound, name
        assert np.std(layer["kernel"]) == pytest.approx(bound / 3**0.5, rel=0.2)


def test_num_params_of_the_smallest_on_mnist_and_order_of_sizes():
    sizes = [
        num_params(classifier(name, shape=(28, 28, 1), num_classes=10))
        for name in ("cnn_fedgen", "cnn_small", "cnn_medium", "cnn_large")
    ]
    # FedGen's: about 26 thousand (Zhu et al., ICML 2021, in their code).
    assert sizes[:2] == [26_412, 26_754]
    assert sizes == sorted(sizes)


def test_classifiers_take_unit_images_to_one_logit_a_class():
    net = classifier("cnn_medium", shape=(9, 8, 3), num_classes=4)
    images = to_unit(jnp.zeros((2, 9, 8, 3), jnp.uint8))

    def logits(key):
        return net.apply(net.init(key), images, train=False).value

    assert jax.eval_shape(logits, jax.random.key(0)).shape == (2, 4)


def test_to_unit_maps_bytes_onto_zero_to_one():
    unit = to_unit(jnp.asarray([0, 51, 255], jnp.uint8))
    assert unit.dtype == jnp.float32
    np.testing.assert_allclose(unit, [0.0, 0.2, 1.0], rtol=1e-6)


def test_bytes_come_back_from_unit_images_as_they_were():
    stored = jnp.arange(256).astype(jnp.uint8)
    np.testing.assert_array_equal(to_bytes(to_unit(stored)), stored)
    np.testing.assert_array_equal(
        to_bytes(jnp.asarray([0.499 / 255, 0.501 / 255])), [0, 1]
    )


def lenet_size(first, second, dense1, dense2, shape, num_classes=10):
    height, width, channels = shape
    side = ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
    kernels = 25 * channels * first + 25 * first * second
    dense = side * second * dense1 + dense1 * dense2 + dense2 * num_classes
    return kernels + dense + first + second + dense1 + dense2 + num_classes


@pytest.mark.parametrize("shape", [MNIST, (32, 32, 3), (12, 13, 1)])
@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("lenet5", (6, 16, 120, 84)),
        ("lenet5_half", (3, 8, 60, 42)),
        ("lenet5_quarter", (2, 4, 30, 21)),
    ],
)
def test_num_params_of_the_lenets(name, units, shape):
    net = classifier(name, shape=shape, num_classes=10)
    assert num_params(net) == lenet_size(*units, shape)


def test_lenet_on_mnist_has_its_well_known_size():
    assert num_params(classifier("lenet5", shape=MNIST, num_classes=10)) == 61_706


def test_num_params_of_the_mlp():
    net = classifier("mlp", shape=MNIST, num_classes=10)
    assert num_params(net) == 784 * 200 + 200 + 200 * 200 + 200 + 200 * 10 + 10


@pytest.mark.parametrize("name", LENETS)
@pytest.mark.parametrize("shape", [(11, 28, 1), (28, 11, 1)])
def test_a_lenet_refuses_images_that_its_layers_would_use_up(name, shape):
    size = f"{shape[0]}x{shape[1]}"
    with pytest.raises(ValueError, match=rf"12x12, not {size}.*cnn_\*.*mlp"):
        classifier(name, shape=shape, num_classes=3)


# Sides of the stage maps on images of 13 x 12, and channels; then the features.
EXPECTED = {
    "cnn_small": ([(7, 6, 8), (4, 3, 16)], 32),
    "cnn_medium": ([(7, 6, 16), (4, 3, 32)], 64),
    "cnn_large": ([(7, 6, 32), (4, 3, 64)], 128),
    "cnn_fedgen": ([(7, 6, 6), (4, 3, 16)], 32),
    "lenet5": ([(6, 6, 6), (1, 1, 16)], 84),
    "lenet5_half": ([(6, 6, 3), (1, 1, 8)], 42),
    "lenet5_quarter": ([(6, 6, 2), (1, 1, 4)], 21),
    "mlp": ([], 200),
    "resnet8": ([(13, 12, 16), (7, 6, 32), (4, 3, 64)], 64),
    "wrn_16_1": ([(13, 12, 16), (7, 6, 32), (4, 3, 64)], 64),
    "wrn_16_2": ([(13, 12, 32), (7, 6, 64), (4, 3, 128)], 128),
    "wrn_40_2": ([(13, 12, 32), (7, 6, 64), (4, 3, 128)], 128),
}
WITHOUT_STATISTICS = {"mlp"}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_gives_its_stage_maps_and_last_its_features(name):
    net = classifier(name, shape=(13, 12, 2), num_classes=4)

    def call(key, images):
        return net.apply(net.init(key), images, train=True)

    output = jax.eval_shape(call, jax.random.key(0), jnp.zeros((5, 13, 12, 2)))
    stages, features = EXPECTED[name]
    assert output.value.shape == (5, 4)
    shapes = [each.shape for each in output.activations]
    assert shapes == [*((5, *stage) for stage in stages), (5, features)]
    # BatchNorm or, in a LeNet, what records the moments in its place.
    assert bool(jax.tree.leaves(output.stats)) == (name not in WITHOUT_STATISTICS)
    assert jax.tree.structure(output.stats) == jax.tree.structure(output.moments)


@pytest.mark.parametrize("name", ["cnn_small", "lenet5_quarter", "mlp"])
def test_logits_are_the_linear_classifier_of_the_features(name):
    net = classifier(name, shape=(12, 12, 1), num_classes=3)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.random((4, 12, 12, 1)), jnp.float32)

    def call(key):
        variables = net.init(key)
        return variables, net.apply(variables, images, train=False)

    variables, output = jax.jit(call)(jax.random.key(0))
    features = output.activations[-1]
    assert jnp.min(features) == 0
    assert jnp.max(features) > 0
    last = variables.params["classifier"]
    expected = features @ last["kernel"] + last["bias"][None]
    np.testing.assert_allclose(output.value, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("train", [True, False])
def test_a_lenet_by_hand(train):
    # Each kernel is 1 in its middle: only pooling, bias and the cut edges are left.
    net = classifier("lenet5_quarter", shape=(12, 12, 1), num_classes=2)
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    params, stats = jax.tree.map(
        lambda leaf: jnp.full(leaf.shape, 0.0), (shapes.params, shapes.stats)
    )
    for name in ("conv1", "conv2"):
        kernel = params[name]["kernel"].at[2, 2, 0, 0].set(1.0)
        params[name] = {"kernel": kernel, "bias": jnp.asarray([-0.25, 0.5, 0, 0])}
    params["conv1"]["bias"] = params["conv1"]["bias"][:2]
    pixels = np.random.default_rng(0).random((1, 12, 12, 1), np.float32)
    apply = jax.jit(net.apply, static_argnames="train")
    output = apply(Variables(params, stats), jnp.asarray(pixels), train=train)
    first, second, _ = output.activations
    x = 2 * pixels[0, :, :, 0] - 1
    pooled = np.maximum(x.reshape(6, 2, 6, 2).max(axis=(1, 3)) - 0.25, 0)
    np.testing.assert_allclose(first[0, :, :, 0], pooled, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first[..., 1], 0.5)
    # A 5x5 kernel leaves the middle 2x2 of 6x6, and pooling the largest of these.
    largest = max(pooled[2:4, 2:4].max() - 0.25, 0)
    np.testing.assert_allclose(second[0, 0, 0], [largest, 0.5, 0, 0], rtol=1e-5)
