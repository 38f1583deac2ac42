"""Nets as pure functions, and what BatchNorm keeps of its batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ecogen_jax.nets.classifier import classifier
from ecogen_jax.nets.conv import conv
from ecogen_jax.nets.functional import (
    BatchNorm,
    Recorder,
    Variables,
    functional,
    weighing,
)

SHAPE = (8, 8, 1)
IMAGES = jnp.asarray(np.random.default_rng(0).random((5, *SHAPE)), jnp.float32)
BATCH = jnp.asarray([[1.0, -2.0], [3.0, 4.0], [5.0, 4.0]])
MEAN, VAR = [3.0, 2.0], [8 / 3, 8.0]  # of BATCH, the variance biased


class Norm(BatchNorm):
    """BatchNorm alone, as a net with no hidden layer."""

    def __call__(self, x, *, train):
        return super().__call__(x, train=train), ()


NORM = functional(lambda rngs: Norm(2))


@pytest.fixture(scope="module")
def small():
    """A small classifier, its jitted init, and some variables."""
    net = classifier("cnn_small", shape=SHAPE, num_classes=3)
    init = jax.jit(net.init)
    return net, init, init(jax.random.key(0))


def variables(scale, bias, mean, var):
    as_array = {k: jnp.asarray(v) for k, v in locals().items()}
    params = {"scale": as_array["scale"], "bias": as_array["bias"]}
    return Variables(params, {"mean": as_array["mean"], "var": as_array["var"]})


def assert_trees_close(one, other, rtol=1e-5):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6)


def test_training_normalises_by_the_batch():
    given = variables([2.0, 3.0], [0.5, -1.0], [9.0, 9.0], [4.0, 4.0])
    output = NORM.apply(given, BATCH, train=True)
    centred = (np.asarray(BATCH) - MEAN) / np.sqrt(np.asarray(VAR) + 1e-5)
    np.testing.assert_allclose(
        output.value, centred * [2.0, 3.0] + [0.5, -1.0], rtol=1e-5
    )


def test_inference_normalises_by_the_running_statistics():
    given = variables([2.0, 3.0], [0.5, -1.0], [1.0, -1.0], [4.0, 0.25])
    output = NORM.apply(given, BATCH, train=False)
    centred = (np.asarray(BATCH) - [1.0, -1.0]) / [2.0, 0.5]
    np.testing.assert_allclose(
        output.value, centred * [2.0, 3.0] + [0.5, -1.0], rtol=1e-4
    )


@pytest.mark.parametrize("train", [True, False])
def test_moments_are_those_of_the_input(train):
    given = variables([2.0, 3.0], [0.5, -1.0], [1.0, -1.0], [4.0, 0.25])
    output = NORM.apply(given, BATCH, train=train)
    assert_trees_close(output.moments, {"mean": np.array(MEAN), "var": np.array(VAR)})


def test_moments_weigh_images_as_a_batch_that_repeats_them(small):
    net, _, given = small
    shares = jnp.asarray([1, 0, 3, 0, 4]) / 8
    apply = jax.jit(net.apply, static_argnames="train")

    def weighed(images):
        with weighing(shares):
            return net.apply(given, images, train=False)

    found, plain = jax.jit(weighed)(IMAGES), apply(given, IMAGES, train=False)
    repeated = apply(given, IMAGES[jnp.asarray([0, 2, 2, 2, 4, 4, 4, 4])], train=False)
    assert_trees_close(found.moments, repeated.moments, rtol=1e-4)
    np.testing.assert_allclose(found.value, plain.value, rtol=1e-5)
    # It ends with the block, also for a net that is traced anew.
    again = jax.jit(net.apply, static_argnames="train")(given, IMAGES, train=False)
    assert_trees_close(again.moments, plain.moments)


def test_only_training_moves_the_running_statistics_a_tenth_of_the_way():
    given = variables([1.0, 1.0], [0.0, 0.0], [1.0, -1.0], [4.0, 0.25])
    assert_trees_close(NORM.apply(given, BATCH, train=False).stats, given.stats)
    moved = {
        "mean": 0.9 * np.array([1.0, -1.0]) + 0.1 * np.array(MEAN),
        "var": 0.9 * np.array([4.0, 0.25]) + 0.1 * np.array(VAR),
    }
    assert_trees_close(NORM.apply(given, BATCH, train=True).stats, moved)


def test_images_are_averaged_over_all_axes_but_channels():
    x = jax.random.normal(jax.random.key(0), (3, 4, 5, 2))
    output = NORM.apply(NORM.init(jax.random.key(0)), x, train=True)
    flat = np.asarray(x).reshape(-1, 2)
    moments = {"mean": flat.mean(axis=0), "var": flat.var(axis=0)}
    assert_trees_close(output.moments, moments, rtol=1e-4)
    np.testing.assert_allclose(jnp.std(output.value, (0, 1, 2)), 1, rtol=1e-4)


def test_a_constant_batch_has_no_negative_variance():
    # E[x^2] - E[x]^2 rounds to -4e-5 here: more than epsilon makes up for.
    x = jnp.full((64, 14, 14, 2), 10.3)
    output = jax.jit(lambda v, x: NORM.apply(v, x, train=True))(
        NORM.init(jax.random.key(0)), x
    )
    assert jnp.all(output.moments["var"] >= 0)
    assert jnp.all(jnp.isfinite(output.value))


def test_moments_are_laid_out_like_stats_and_belong_to_their_layer(small):
    net, _, given = small
    output = jax.jit(net.apply, static_argnames="train")(given, IMAGES, train=False)
    assert jax.tree.structure(output.moments) == jax.tree.structure(given.stats)
    assert [a.shape for a in jax.tree.leaves(output.moments)] == [
        a.shape for a in jax.tree.leaves(given.stats)
    ]
    kernel = given.params["conv1"]["kernel"]
    first = np.asarray(jax.jit(lambda x: conv(2 * x - 1, kernel, stride=2))(IMAGES))
    np.testing.assert_allclose(
        output.moments["norm1"]["mean"], first.mean(axis=(0, 1, 2)), rtol=1e-4
    )
    np.testing.assert_allclose(
        output.moments["norm1"]["var"], first.var(axis=(0, 1, 2)), rtol=1e-4
    )


class Record(Recorder):
    """A recorder alone, as a net with no hidden layer."""

    def __call__(self, x, *, train):
        return super().__call__(x, train=train), ()


def test_a_recorder_changes_nothing_and_learns_only_in_training():
    net = functional(lambda rngs: Record(2))
    stats = {"mean": jnp.asarray([1.0, -1.0]), "var": jnp.asarray([4.0, 0.25])}
    given = Variables({}, stats)
    trained = net.apply(given, BATCH, train=True)
    shown = net.apply(given, BATCH, train=False)
    for output in (trained, shown):
        np.testing.assert_array_equal(output.value, BATCH)
    assert_trees_close(shown.stats, stats, rtol=0)
    moved = {
        "mean": 0.99 * np.array([1.0, -1.0]) + 0.01 * np.array(MEAN),
        "var": 0.99 * np.array([4.0, 0.25]) + 0.01 * np.array(VAR),
    }
    assert_trees_close(trained.stats, moved)


def test_a_recorder_tells_moments_in_units_of_the_spread_it_remembers():
    net = functional(lambda rngs: Record(2))
    mean, var = np.array([1.0, -1.0]), np.array([4.0, 0.25])
    stats = {
        "mean": jnp.asarray(mean, jnp.float32),
        "var": jnp.asarray(var, jnp.float32),
    }
    moments = net.apply(Variables({}, stats), BATCH, train=False).moments
    expected = {
        "mean": mean + (np.array(MEAN) - mean) / np.sqrt(var + 1e-3),
        "var": var + (np.array(VAR) - var) / (var + 1e-3),
    }
    assert_trees_close(moments, expected)
    # A batch that is as remembered has no distance, whatever its scale.
    own = {"mean": jnp.asarray(MEAN), "var": jnp.asarray(VAR)}
    same = net.apply(Variables({}, own), BATCH, train=False).moments
    assert_trees_close(same, own)


class Mixed(nnx.Module):
    """A dense layer between two norms."""

    def __init__(self, rngs):
        self.norm1 = BatchNorm(2)
        self.dense = nnx.Linear(2, 3, rngs=rngs)
        self.norm2 = BatchNorm(3)

    def __call__(self, x, *, train):
        x = jnp.tanh(self.dense(self.norm1(x, train=train)))
        return self.norm2(x, train=train), (x,)


class Chain(nnx.Module):
    """More layers than sort by number: norm10 comes before norm2."""

    def __init__(self):
        self.norms = nnx.Dict({f"norm{i}": BatchNorm(2) for i in (1, 2, 10)})

    def __call__(self, x, *, train):
        for i in (1, 2, 10):
            x = i + self.norms[f"norm{i}"](x, train=train)
        return x, ()


def test_moments_keep_to_their_layer_whatever_its_name():
    net = functional(lambda rngs: Chain())
    output = net.apply(net.init(jax.random.key(0)), BATCH, train=True)
    means = {name: m["mean"] for name, m in output.moments["norms"].items()}
    expected = {"norm1": MEAN, "norm2": [1.0, 1.0], "norm10": [2.0, 2.0]}
    assert_trees_close(means, {k: np.array(v) for k, v in expected.items()})


def test_activations_come_out_as_the_module_gives_them():
    net = functional(Mixed)
    output = net.apply(net.init(jax.random.key(0)), BATCH, train=True)
    (hidden,) = output.activations
    moments = {"mean": hidden.mean(axis=0), "var": hidden.var(axis=0)}
    assert_trees_close(output.moments["norm2"], moments, rtol=1e-4)


def test_apply_changes_neither_its_variables_nor_later_calls():
    net = functional(Mixed)
    given = net.init(jax.random.key(0))
    before = jax.tree.map(np.array, given)
    first = net.apply(given, BATCH, train=False).value
    jax.jit(net.apply, static_argnames="train")(given, BATCH, train=True)
    net.apply(given, BATCH, train=True)
    assert_trees_close(given, before, rtol=0)
    np.testing.assert_array_equal(net.apply(given, BATCH, train=False).value, first)


def test_init_is_a_function_of_its_key(small):
    _, init, given = small
    assert_trees_close(init(jax.random.key(0)), given)
    other = init(jax.random.key(1)).params["conv1"]["kernel"]
    assert not np.allclose(other, given.params["conv1"]["kernel"])
    assert_trees_close(given.stats["norm3"], {"mean": np.zeros(32), "var": np.ones(32)})


def test_gradients_under_vmap_are_those_of_each_client():
    net = functional(Mixed)
    target = jax.random.normal(jax.random.key(2), (3, 3))

    def loss(params, stats, x):
        output = net.apply(Variables(params, stats), x, train=True)
        return jnp.sum(output.value * target), output.stats

    grad = jax.grad(loss, has_aux=True)
    clients = jax.jit(jax.vmap(net.init))(jax.random.split(jax.random.key(3), 2))
    batches = jnp.stack([BATCH, jnp.sin(BATCH)])
    mapped = jax.jit(jax.vmap(grad))(clients.params, clients.stats, batches)
    one = jax.jit(grad)
    for client in range(2):
        params, stats = jax.tree.map(
            lambda a, client=client: a[client], (clients.params, clients.stats)
        )
        theirs = jax.tree.map(lambda a, client=client: a[client], mapped)
        assert_trees_close(theirs, one(params, stats, batches[client]), rtol=1e-3)
    assert all(np.any(g != 0) for g in jax.tree.leaves(jax.device_get(mapped[0])))
