"""In bf16 every product has bfloat16 operands and float32 sums; all else is float32."""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from ecogen_jax import losses
from ecogen_jax.data import sources
from ecogen_jax.energy import meter
from ecogen_jax.metrics import class_hits
from ecogen_jax.nets.classifier import classifier, to_unit
from ecogen_jax.nets.functional import Variables
from ecogen_jax.nets.generator import generator
from ecogen_jax.nets.precision import PRECISIONS, at_precision, matmul
from ecogen_jax.nets.textbook import textbook
from ecogen_jax.relay.learn import Data, Material, learner
from tests.toy_nets import at

SHAPE, CLASSES = (12, 12, 1), 10
NETS = ("lenet5_quarter", "cnn_small", "cnn_fedgen", "mlp", "resnet8")
IMAGES = jnp.asarray(np.random.default_rng(0).random((4, *SHAPE)), jnp.float32)
LABELS = jnp.asarray([3, 1, 4, 1])


def normal(*shape):
    return jnp.asarray(np.random.default_rng(shape).normal(size=shape), jnp.float32)


def rounded(x):
    return x.astype(jnp.bfloat16).astype(jnp.float32)


def net_of(name, precision):
    return at_precision(classifier(name, shape=SHAPE, num_classes=CLASSES), precision)


def loss_of(net):
    def loss(params, stats, images):
        output = net.apply(Variables(params, stats), images, train=True)
        return losses.cross_entropy(output.value, LABELS), output

    return loss


def gradients(net):
    """Program from variables and images to gradients of both, and the output."""
    of_both = jax.grad(loss_of(net), argnums=(0, 2), has_aux=True)
    return lambda v, images: of_both(v.params, v.stats, images)


def products(jaxpr):
    """Dtypes of the operands and the result of every product in a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            variables = (*equation.invars, *equation.outvars)
            yield tuple(variable.aval.dtype.name for variable in variables)
        for inner in core.jaxprs_in_params(equation.params):
            yield from products(inner)


EXACT = {
    "f32": ("float32", "float32", "float32"),
    "bf16": ("bfloat16", "bfloat16", "float32"),
}


def test_sums_are_float32():
    # In bfloat16 the sum stays at 256, and 1001 is no number.
    ones = jnp.ones((1, 1001)), jnp.ones((1001, 1))
    assert at("bf16", matmul)(*ones).item() == 1001


def test_operands_are_rounded_to_eight_bits():
    x, one = jnp.asarray([[1 + 2**-7, 1 + 2**-9]]), jnp.eye(2)
    np.testing.assert_array_equal(at("bf16", matmul)(x, one), [[1 + 2**-7, 1.0]])
    np.testing.assert_array_equal(at("f32", matmul)(x, one), x)


@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 4, 7)], ids=str)
def test_matrix_products_and_their_gradients_are_exact_but_for_the_rounding(shape):
    inputs = normal(*shape), normal(7, 3)
    cotangent = normal(*shape[:-1], 3)
    value, pullback = jax.vjp(at("bf16", matmul), *inputs)
    expected, plain = jax.vjp(jnp.matmul, *map(rounded, inputs))
    found = value, *pullback(cotangent)
    for ours, theirs in zip(found, (expected, *plain(rounded(cotangent))), strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_a_gradient_is_near_that_in_float32():
    inputs = normal(5, 7), normal(7, 3)

    def penalty(precision):
        def energy(x, kernel):
            return jnp.sum(jnp.sin(at(precision, matmul)(x, kernel)))

        return lambda x, kernel: jnp.sum(jnp.square(jax.grad(energy)(x, kernel)))

    ours, theirs = (
        jax.jit(jax.grad(penalty(precision), 1))(*inputs) for precision in PRECISIONS
    )
    assert 0 < np.linalg.norm(ours - theirs) < 0.03 * np.linalg.norm(theirs)


@pytest.mark.parametrize("plain", [False, True], ids=["cpu", "accelerator"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NETS)
def test_every_product_of_training_has_operands_of_the_precision(
    name, precision, plain
):
    net = net_of(name, precision)
    variables = jax.eval_shape(net.init, jax.random.key(0))
    with textbook(plain):
        jaxpr = jax.make_jaxpr(gradients(net))(variables, IMAGES).jaxpr
    found = list(products(jaxpr))
    assert len(found) >= 9  # three of each layer, of which there are three or more
    assert set(found) == {EXACT[precision]}


def test_so_have_the_generator_and_nets_under_vmap():
    maker = generator(shape=SHAPE, num_classes=CLASSES, latent_size=3, width=4)
    maker, net = at_precision(maker, "bf16"), net_of("cnn_small", "bf16")

    def step(made_by, taught, latent):
        images = maker.apply(made_by, latent, LABELS, train=True).value
        return gradients(net)(taught, images)

    def for_each(key, latent):
        return step(maker.init(key), net.init(key), latent)

    jaxpr = jax.make_jaxpr(jax.vmap(for_each))(
        jax.random.split(jax.random.key(0), 2), jnp.zeros((2, 4, 3))
    )
    assert set(products(jaxpr.jaxpr)) == {EXACT["bf16"]}


def float_dtypes(tree):
    leaves = jax.tree.leaves(tree)
    return {a.dtype.name for a in leaves if jnp.issubdtype(a.dtype, jnp.floating)}


@pytest.mark.parametrize("name", NETS)
def test_nothing_that_leaves_a_net_is_bfloat16(name):
    net = net_of(name, "bf16")
    variables = jax.eval_shape(net.init, jax.random.key(0))
    made = jax.eval_shape(gradients(net), variables, IMAGES)
    assert float_dtypes((variables, made)) == {"float32"}


def training(net, steps):
    return learner(
        net,
        batch_size=64,
        learning_rate=2e-3,
        total_steps=steps,
        temperature=1.0,
        replay_weight=0.0,
    )


def test_parameters_optimiser_and_losses_stay_float32():
    learn = training(net_of("cnn_small", "bf16"), 2)
    data = Data(jnp.zeros((4, *SHAPE), jnp.uint8), LABELS, jnp.int32(4))

    def two_steps(key):
        state = learn.init(net_of("cnn_small", "bf16").init(key))
        for _ in range(2):
            state, terms = learn.step(state, Material(data, None), key)
        return state, terms

    made = jax.eval_shape(two_steps, jax.random.key(0))
    assert float_dtypes(made) == {"float32"}


def distance(ours, theirs):
    """Relative, in the L2 norm over all leaves."""
    one, other = (jax.flatten_util.ravel_pytree(tree)[0] for tree in (ours, theirs))
    return np.linalg.norm(one - other) / np.linalg.norm(other)


@pytest.mark.parametrize("name", NETS[:2])
def test_outputs_and_gradients_are_near_those_in_float32(name):
    images = jax.random.uniform(jax.random.key(1), (64, *SHAPE))
    variables = jax.jit(net_of(name, "f32").init)(jax.random.key(0))

    def program(precision):
        def loss(params):
            given = Variables(params, variables.stats)
            output = net_of(name, precision).apply(given, images, train=True)
            target = jnp.arange(64, dtype=jnp.int32) % CLASSES
            return losses.cross_entropy(output.value, target), output

        return jax.jit(jax.grad(loss, has_aux=True))(variables.params)

    (grads, output), (true_grads, true_output) = map(program, ("bf16", "f32"))
    assert 0 < distance(output.value, true_output.value) < 0.01
    assert 0 < distance(output.stats, true_output.stats) < 0.01
    # Most of it is from units near zero that the rounding switches on or off.
    assert 0 < distance(grads, true_grads) < 0.1


def test_operations_are_the_same_and_counted_by_their_operands():
    counts = {}
    for precision in PRECISIONS:
        net = net_of("lenet5_quarter", precision)
        variables = jax.eval_shape(net.init, jax.random.key(0))
        counts[precision] = meter.cost(gradients(net), variables, IMAGES)
    plain, half = (counts[precision] for precision in PRECISIONS)
    assert half.by_class == plain.by_class
    for kind in ("conv", "matmul"):
        assert set(half.by_class_and_dtype) >= {(kind, "bfloat16")}
        assert (kind, "float32") not in half.by_class_and_dtype


STEPS, SEEDS = 1000, 3


@pytest.mark.slow
@pytest.mark.network
def test_on_mnist_bf16_is_as_accurate_as_f32():
    dataset = sources.load("mnist")
    images = jnp.asarray(dataset.train_images)
    data = Data(images, jnp.asarray(dataset.train_labels), jnp.int32(len(images)))
    seen, labels = jnp.asarray(dataset.test_images), jnp.asarray(dataset.test_labels)

    def accuracy(net, key):
        learn = training(net, STEPS)

        def step(state, key):
            return learn.step(state, Material(data, None), key)

        first, order = jax.random.split(key)
        state, _ = jax.lax.scan(
            step, learn.init(net.init(first)), jax.random.split(order, STEPS)
        )
        logits = net.apply(state.variables, to_unit(seen), train=False)
        return jnp.sum(class_hits(logits.value, labels)) / labels.shape[0]

    found = {}
    for precision in PRECISIONS:
        net = at_precision(
            classifier("lenet5", shape=(28, 28, 1), num_classes=10), precision
        )
        one = jax.jit(functools.partial(accuracy, net))
        found[precision] = [one(jax.random.key(seed)).item() for seed in range(SEEDS)]
    means = [np.mean(found[precision]) for precision in PRECISIONS]
    assert min(means) > 0.98
    assert abs(means[1] - means[0]) <= 0.003, found
