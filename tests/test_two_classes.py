"""Images that are asked for two classes at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ecogen_jax import config as configs
from ecogen_jax import losses
from ecogen_jax.config import ConfigError
from ecogen_jax.nets.generator import generator
from ecogen_jax.relay.distillers import DISTILLERS, engine
from ecogen_jax.relay.distillers.base import Hop, Weights
from ecogen_jax.relay.distillers.labels import label_shares
from ecogen_jax.relay.settings import Leg
from ecogen_jax.run import build_route
from ecogen_jax.run.build import outline
from tests import toy_maps
from tests.toy_maps import CLASSES

TEACHER = toy_maps.classifier(6)
TEACHERS = toy_maps.teachers(TEACHER)
KEY = jax.random.key(0)


def hop(**changes):
    weights = Weights(cross_entropy=0.5, batchnorm=2.0)
    sizes = toy_maps.sizes(**{"weights": weights, **changes})
    return Hop(toy_maps.classifier(5), (TEACHER,), toy_maps.generator(), *sizes)


def test_the_divergence_by_hand():
    # p = (3/4, 1/4) against y = (1/2, 1/2), and y = p.
    logits = jnp.asarray([[np.log(3), 0.0], [np.log(3), 0.0]], jnp.float32)
    shares = jnp.asarray([[0.5, 0.5], [0.75, 0.25]])
    expected = (0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)) / 2
    found = losses.label_divergence(logits, shares)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_of_one_class_each_it_is_the_cross_entropy():
    logits = jax.random.normal(KEY, (6, CLASSES)).at[0, 1].set(-jnp.inf)
    labels = jnp.asarray([0, 2, 1, 1, 0, 2])
    found = losses.label_divergence(logits, jax.nn.one_hot(labels, CLASSES))
    np.testing.assert_allclose(found, losses.cross_entropy(logits, labels), rtol=1e-6)


def test_its_gradient_by_finite_differences():
    logits = jax.random.normal(KEY, (4, CLASSES))
    shares = jnp.asarray([[0.7, 0.3, 0], [1, 0, 0], [0, 0.5, 0.5], [0.2, 0.2, 0.6]])
    loss = jax.jit(lambda logits: losses.label_divergence(logits, shares))
    check_grads(loss, (logits,), order=1, modes=["rev"], atol=1e-3, rtol=1e-3, eps=1e-2)


def test_only_the_first_images_have_a_second_class_and_only_known_ones():
    of = hop(batch_size=400, two_classes=0.25)
    first = engine.draw(of, TEACHERS, KEY).labels
    shares = np.asarray(label_shares(of, TEACHERS, first, KEY))
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(shares.argmax(axis=1), first)
    np.testing.assert_array_equal(shares[100:], jax.nn.one_hot(first[100:], CLASSES))
    # Nobody knows class 1, so of the others each is drawn in half of the images.
    assert not shares[:, 1].any()
    two = (shares[:100] > 0).sum(axis=1) == 2
    assert 35 <= two.sum() <= 65
    own = shares[:100].max(axis=1)[two]
    assert own.min() < 0.55
    assert own.max() > 0.95
    assert own.mean() == pytest.approx(0.75, abs=0.07)


def test_without_a_share_of_them_labels_stay_labels():
    first = engine.draw(hop(), TEACHERS, KEY).labels
    assert label_shares(hop(), TEACHERS, first, KEY) is None


def test_the_generator_is_asked_for_the_shares_that_its_loss_is_about():
    of = hop(two_classes=0.5)
    first, second = jax.random.split(KEY)
    student, made = of.student.init(first), of.generator.init(second)
    state = engine.begin(of, student, made, TEACHERS)
    loss, batch = jax.jit(engine.fresh_images(of, TEACHERS, state))(made.params, KEY)
    asked = engine.draw(of, TEACHERS, KEY)
    shares = label_shares(of, TEACHERS, asked.labels, KEY)
    images = of.generator.apply(made, asked.latent, shares, train=True).value
    np.testing.assert_allclose(batch.images, images, rtol=1e-5)
    np.testing.assert_array_equal(batch.labels, asked.labels)
    divergence = losses.label_divergence(batch.logits, shares)
    np.testing.assert_allclose(batch.terms["cross_entropy"], divergence, rtol=1e-5)
    expected = 0.5 * divergence + 2 * batch.terms["batchnorm"]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_a_generator_takes_a_label_as_the_whole_share_of_its_class():
    net = generator(shape=(8, 8, 1), num_classes=CLASSES, latent_size=6, width=4)
    variables, latent = net.init(KEY), jax.random.normal(KEY, (3, 6))
    labels = jnp.asarray([0, 2, 1])

    def images(code):
        return net.apply(variables, latent, code, train=False).value

    shares = jax.nn.one_hot(labels, CLASSES)
    np.testing.assert_array_equal(images(labels), images(shares))
    between = images(shares.at[0].set(jnp.asarray([0.5, 0.5, 0.0])))
    np.testing.assert_array_equal(between[1:], images(labels)[1:])
    assert jnp.max(jnp.abs(between[0] - images(labels)[0])) > 1e-3


def test_a_share_below_one_image_asks_for_one():
    of = hop(two_classes=1e-3)
    first = engine.draw(of, TEACHERS, KEY).labels
    assert label_shares(of, TEACHERS, first, KEY) is not None


def smoke(route, section, **fields):
    config = configs.default()
    configs.smoke(config)
    config.protocol.update(name="hops", cycles=1, route=(route,))
    if route.startswith("end"):
        config.data.public_fraction = 0.0
    config[section].update(two_classes=0.5, **fields)
    return config


def test_a_config_reaches_the_distiller():
    config = smoke("cloud>edge", "down_cloud_edge")
    leg = Leg("cloud", "edge", returns=False)
    found = build_route.generation(config, leg, toy_maps.SHAPE, CLASSES)
    assert found.two_classes == 0.5
    outline(config)


@pytest.mark.parametrize("name", sorted(set(DISTILLERS) - {"relay"}))
def test_a_distiller_that_asks_for_one_class_refuses_two(name):
    config = smoke("cloud>edge", "down_cloud_edge", distiller=name)
    with pytest.raises(ConfigError, match=r"two_classes = 0\.5.*only relay"):
        outline(config)


def test_several_teachers_are_combined_by_one_label():
    config = smoke("end>edge", "up_end_edge")
    remedy = r"up_end_edge.two_classes = 0\.5.*0 in a hop of 2 teachers"
    with pytest.raises(ConfigError, match=remedy):
        outline(config)


def test_without_its_loss_there_is_nothing_to_ask_for():
    config = smoke("cloud>edge", "down_cloud_edge")
    config.down_cloud_edge.weights.cross_entropy = 0.0
    with pytest.raises(ConfigError, match=r"two_classes.*weights\.cross_entropy"):
        outline(config)
