"""A net of convolutions takes the same step wherever its clients are mapped."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import losses, mesh
from ecogen_jax.nets.classifier import classifier
from ecogen_jax.nets.functional import Variables
from ecogen_jax.nets.textbook import textbook

COUNT, CLASSES, SHAPE = 8, 3, (8, 8, 1)
NET = classifier("cnn_fedgen", shape=SHAPE, num_classes=CLASSES)


def train(variables, images, labels):
    """One step of a net with convolutions and BatchNorm, for one client."""

    def loss(params):
        output = NET.apply(Variables(params, variables.stats), images, train=True)
        return losses.cross_entropy(output.value, labels), output.stats

    (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(variables.params)
    params = jax.tree.map(lambda p, g: p - 0.5 * g, variables.params, grads)
    return Variables(params, stats), value


@functools.cache
def clients():
    rng = np.random.default_rng(0)
    nets = jax.jit(jax.vmap(NET.init))(jax.random.split(jax.random.key(0), COUNT))
    images = jnp.asarray(rng.uniform(size=(COUNT, 6, *SHAPE)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, CLASSES, (COUNT, 6)), jnp.int32)
    return nets, images, labels


@functools.cache
def reference():
    """Each client by itself, outside any mapping, with our convolutions."""
    one = jax.jit(train)
    each = [one(*jax.tree.map(lambda a, i=i: a[i], clients())) for i in range(COUNT)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *each)


def assert_agrees(found, tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(reference())
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(reference()), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("backend", "num_devices"),
    [
        *((backend, 1) for backend in ("loop", "scan", "vmap")),
        *(("shard_map", number) for number in (1, 2, 4, 8)),
        *(("pmap", number) for number in (1, 2, 4, 8)),
    ],
)
def test_backends_agree_with_the_same_convolutions(backend, num_devices):
    one = jax.jit(train) if backend == "loop" else train
    mapped = mesh.map_clients(one, backend=backend, num_devices=num_devices)
    mapped = mapped if backend == "loop" else jax.jit(mapped)
    assert_agrees(mapped(*clients()), 1e-6)


@pytest.mark.parametrize(
    ("backend", "num_devices"), [("scan", 1), ("vmap", 1), ("shard_map", 4)]
)
def test_backends_agree_with_the_convolutions_of_lax(backend, num_devices):
    with textbook(True):
        mapped = mesh.map_clients(train, backend=backend, num_devices=num_devices)
        lowered = jax.jit(mapped).lower(*clients())
    # Under `vmap`, convolutions of one kernel per client become grouped ones.
    grouped = f"feature_group_count = {COUNT}" in lowered.as_text()
    assert grouped == (backend == "vmap")
    assert_agrees(lowered.compile()(*clients()), 1e-5)
