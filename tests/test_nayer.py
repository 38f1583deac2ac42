"""NAYER-type: label codes, the noisy layer, and the generator's life."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.relay.distillers import nayer
from tests import toy_inversion as toy


def test_labels_come_in_rounds_of_the_known_classes():
    weights = jnp.array([[0.5, 0.0, 0.0, 1.0], [0.5, 0.0, 1.0, 0.0]])
    labels, rounds = nayer.in_turn(weights, 9, jax.random.key(0))
    for number in range(3):
        assert sorted(labels[rounds == number].tolist()) == [0, 2, 3]


def test_every_class_comes_first_at_times():
    draw = jax.vmap(lambda key: nayer.in_turn(jnp.ones((1, 3)), 4, key)[0][0])
    firsts = draw(jax.random.split(jax.random.key(0), 60))
    assert np.bincount(firsts).min() > 8


def noise(rounds=2, size=6, width=4):
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(3), rounds)
    codes = np.asarray(jax.random.orthogonal(jax.random.key(0), size))[:3]
    params = {
        "norm": {name: rng.normal(size=size) for name in ("scale", "bias")},
        "layers": {
            "kernel": rng.normal(size=(rounds, size, width)),
            "bias": rng.normal(size=(rounds, width)),
        },
    }
    params = jax.tree.map(lambda a: a.astype(np.float32), params)
    return params, codes[labels], np.repeat(np.arange(rounds), 3)


def test_noise_is_the_normalised_code_through_the_layer_of_its_round():
    params, codes, rounds = noise()
    given = jnp.asarray(codes), jnp.asarray(rounds, jnp.int32)
    got = nayer.latent(params, *given, jnp.ones((6, 4)))
    x = (codes - codes.mean(0)) / np.sqrt(codes.var(0) + 1e-5)
    x = x * params["norm"]["scale"] + params["norm"]["bias"]
    for i, number in enumerate(rounds):
        layer = {name: leaf[number] for name, leaf in params["layers"].items()}
        want = (x[i] @ layer["kernel"] + layer["bias"]) / np.sqrt(codes.shape[1])
        np.testing.assert_allclose(got[i], want, rtol=1e-4, atol=1e-5)


def test_noise_of_new_layers_spreads_as_normal_noise_does():
    hop = toy.hop(num_classes=10, latent_size=16, batch_size=200)
    layers = nayer.noisy_layers(hop, 16, jax.random.key(0))
    codes = jax.random.orthogonal(jax.random.key(1), 16)[:10]
    labels, rounds = nayer.in_turn(jnp.ones((1, 10)), 200, jax.random.key(2))
    params = {"norm": nayer._identity(16), "layers": layers}
    z = nayer.latent(params, codes[labels], rounds, jnp.zeros((200, 16)))
    np.testing.assert_allclose(z.std(), 1.0, atol=0.1)
    assert len(np.unique(z, axis=0)) == 200


@pytest.mark.parametrize("known", [1, 2, 7, 10])
def test_no_image_is_made_twice_where_few_classes_are_known(known):
    hop = toy.hop(num_classes=10, latent_size=16, batch_size=60)
    layers = nayer.noisy_layers(hop, 16, jax.random.key(0))
    codes = jax.random.orthogonal(jax.random.key(1), 16)[:10]
    weights = (jnp.arange(10) < known).astype(jnp.float32)[None]
    labels, rounds = nayer.in_turn(weights, 60, jax.random.key(2))
    params = {"norm": nayer._identity(16), "layers": layers}
    spare = jax.random.normal(jax.random.key(3), (60, 16))
    z = nayer.latent(params, codes[labels], rounds, spare)
    # The code of a class that comes alone is normalised away, and with it the layers.
    copies = len(layers["kernel"]) - 1 if known == 1 else 0
    assert len(np.unique(z, axis=0)) >= 60 - copies


def test_codes_are_orthonormal_and_stay():
    distiller, received = toy.build("nayer", toy.hop()), toy.teachers()
    before = toy.begin(distiller, received).extra
    after = toy.run(distiller, received)[0].extra
    np.testing.assert_allclose(before.codes @ before.codes.T, np.eye(3), atol=1e-5)
    np.testing.assert_array_equal(before.codes, after.codes)
    assert np.abs(after.norm["scale"] - before.norm["scale"]).max() > 0
    assert after.batches == 2


@pytest.mark.parametrize("batches", [0, 1, nayer.LIFE - 1, nayer.LIFE])
def test_a_generator_is_made_anew_at_the_end_of_its_life(batches):
    distiller, received = toy.build("nayer", toy.hop()), toy.teachers()
    state, other = (toy.begin(distiller, received, seed) for seed in (0, 9))
    extra = state.extra._replace(batches=jnp.int32(batches))
    step = toy.jitted(distiller)
    one, two = (
        step(state.replace(generator=g, extra=extra), received, jax.random.key(1))[0]
        for g in (state.generator, other.generator)
    )
    same = np.array_equal(one.bank.images, two.bank.images)
    assert same == (batches % nayer.LIFE == 0)


def test_the_noisy_layer_is_drawn_anew_for_every_batch():
    # Without a step of size, batches differ in the layers and in the order of labels.
    distiller = toy.build("nayer", toy.hop(learning_rate=1e-9))
    state, _ = toy.run(distiller, toy.teachers())
    images, labels = (
        np.asarray(of_bank[: 2 * toy.BATCH])
        for of_bank in (state.bank.images, state.bank.labels)
    )
    for label in range(3):
        made = images[labels == label]
        assert len(made) == 2 * toy.BATCH // 3
        assert len(np.unique(made, axis=0)) == len(made)
