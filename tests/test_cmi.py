"""Contrastive model inversion: what keeps images apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import losses
from ecogen_jax.nets.functional import Net, Output, Variables
from ecogen_jax.relay.distillers import cmi
from ecogen_jax.relay.distillers.base import Made, Weights
from ecogen_jax.relay.ensemble import Teachers
from tests import toy_inversion as toy

CONTRAST = Weights(contrastive=1.0)


def unit(rng, *shape):
    x = rng.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_info_nce_is_the_share_of_the_own_positive():
    rng = np.random.default_rng(0)
    a, p, n = unit(rng, 4, 3), unit(rng, 4, 3), unit(rng, 5, 3)
    known = np.array([True, False, True, True, False])
    inside = np.exp(a @ p.T / 0.1)
    below = inside.sum(1) + np.exp(a @ n[known].T / 0.1).sum(1)
    got = losses.info_nce(
        *map(jnp.asarray, (a, p, n)), jnp.asarray(known), temperature=0.1
    )
    np.testing.assert_allclose(got, -np.log(np.diag(inside) / below).mean(), rtol=1e-5)


def test_info_nce_has_a_finite_gradient_where_no_negative_is_known():
    rng = np.random.default_rng(1)
    p, n = jnp.asarray(unit(rng, 4, 3)), jnp.asarray(unit(rng, 5, 3))
    known = jnp.zeros(5, bool)

    def loss(a, n):
        return losses.info_nce(a, p, n, known, temperature=0.1)

    of_anchors, of_negatives = jax.grad(loss, (0, 1))(p, n)
    assert np.isfinite(of_anchors).all()
    assert np.abs(of_anchors).max() > 0
    np.testing.assert_array_equal(of_negatives, 0)


def test_a_window_of_the_whole_side_leaves_the_image():
    window = cmi._window(jnp.ones(2), jnp.array([0.0, 0.7]), 5)
    np.testing.assert_allclose(window, np.tile(np.eye(5), (2, 1, 1)), atol=1e-6)


def test_a_window_enlarges_a_ramp_by_its_side():
    window = cmi._window(jnp.full(1, 0.5), jnp.full(1, 0.5), 8)
    seen = np.asarray(window[0] @ jnp.arange(8.0))
    # Half the side from a quarter on: pixel centres 1.75, 2.25, ... 5.25.
    np.testing.assert_allclose(seen, 1.75 + 0.5 * np.arange(8), rtol=1e-5)


def test_a_crop_stays_within_its_image():
    rng = np.random.default_rng(2)
    levels = rng.uniform(size=(6, 1, 1, 2)).astype(np.float32)
    images = jnp.asarray(np.broadcast_to(levels, (6, 8, 7, 2)))
    got = cmi.cropped(images, jax.random.key(0))
    np.testing.assert_allclose(got, images, rtol=1e-5)
    images = jnp.asarray(rng.uniform(size=(6, 8, 7, 1)).astype(np.float32))
    got = cmi.cropped(images, jax.random.key(0))
    assert got.shape == images.shape
    assert (got.max((1, 2, 3)) <= images.max((1, 2, 3)) + 1e-6).all()
    assert np.abs(got - images).max() > 0.01


def mapped(factor):
    """A net whose only map is the image times a number; and a feature."""

    def apply(variables, *inputs, train):
        maps = inputs[0] * variables.params
        features = jnp.sum(maps, (1, 2, 3))[:, None]
        return Output(features, {}, {}, (maps, features))

    return Net(lambda key: Variables(jnp.float32(factor), {}), apply)


def test_features_are_means_over_the_image_of_every_member():
    net = mapped(1.0)
    groups = [Variables(jnp.array([1.0, 2.0]), {}), Variables(jnp.array([3.0]), {})]
    images = np.random.default_rng(3).uniform(size=(4, 2, 2, 1)).astype(np.float32)
    got = cmi.features(
        (net, net), Teachers(tuple(groups), jnp.ones((3, 1))), jnp.asarray(images)
    )
    mean, total = images.mean((1, 2, 3)), images.sum((1, 2, 3))
    want = [factor * part for factor in (1, 2, 3) for part in (mean, total)]
    np.testing.assert_allclose(got, np.stack(want, axis=1), rtol=1e-5)


def test_the_memory_holds_what_the_teachers_saw_in_earlier_images(monkeypatch):
    monkeypatch.setattr(cmi, "MEMORY_SIZE", 30)
    distiller, received = toy.build("cmi", toy.hop(CONTRAST)), toy.teachers(2)
    state, _ = toy.run(distiller, received, number=3)
    assert state.extra.written == 3 * toy.BATCH
    # The bank's images are rounded to bytes.
    images = state.bank.images[: 3 * toy.BATCH].astype(jnp.float32) / 255
    seen = cmi.features((toy.TEACHER,), received, images)
    want = np.concatenate([seen[30:], seen[6:30]])
    np.testing.assert_allclose(state.extra.memory, want, atol=0.05)


def test_the_head_learns_and_is_kept():
    distiller, received = toy.build("cmi", toy.hop(CONTRAST)), toy.teachers()
    before = toy.begin(distiller, received).extra.head
    after = toy.run(distiller, received, number=1)[0].extra.head
    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert np.abs(one - other).max() > 0


def test_images_move_apart():
    found = {}
    for inner_steps in (1, 40):
        given = toy.hop(CONTRAST, inner_steps=inner_steps)
        _, metrics = toy.run(toy.build("cmi", given), toy.teachers(), number=1)
        found[inner_steps] = metrics["contrastive"]
    assert found[40] < 0.8 * found[1]


@pytest.mark.parametrize("weights", [toy.ASKED, CONTRAST])
def test_a_weight_of_zero_leaves_out_head_and_memory(weights):
    distiller, received = toy.build("cmi", toy.hop(weights)), toy.teachers()
    state, metrics = toy.run(distiller, received, number=1)
    assert (state.extra is None) == (weights.contrastive == 0)
    assert ("contrastive" in metrics) == (weights.contrastive > 0)


def test_the_head_follows_the_local_views_alone(monkeypatch):
    monkeypatch.setattr(cmi, "MEMORY_SIZE", 30)
    hop, received = toy.hop(CONTRAST), toy.teachers()
    extra = cmi._first(hop, received, jax.random.key(0))
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.uniform(size=(4, *hop.generation.shape)), jnp.float32)
    others = cmi.features(hop.teachers, received, images[::-1] / 2)
    extra = cmi._remember(extra, extra.head, others)
    made, key = Made(images, None, None, {}, None), jax.random.key(1)

    def term(head):
        terms = cmi._contrast(hop, received, extra)({"head": head}, made, key)
        return terms["contrastive"]

    part, whole = (
        cmi.features(hop.teachers, received, each)
        for each in (cmi.cropped(images, key), images)
    )

    def wanted(head):
        return losses.info_nce(
            cmi.project(head, part),
            cmi.project(extra.head, whole),
            cmi.project(extra.head, extra.memory),
            jnp.arange(30) < 4,
            temperature=cmi.TEMPERATURE,
        )

    assert term(extra.head) == pytest.approx(float(wanted(extra.head)), rel=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        jax.grad(term)(extra.head),
        jax.grad(wanted)(extra.head),
    )
