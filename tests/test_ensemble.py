"""Teachers as one: the weights, and what each teacher contributes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import losses
from ecogen_jax.nets.classifier import classifier
from ecogen_jax.nets.functional import Net, Output, Variables
from ecogen_jax.relay.ensemble import Teachers, ensemble, label_count_weights

SHAPE, CLASSES = (2, 2, 1), 3
IMAGES = jax.random.uniform(jax.random.key(0), (4, *SHAPE))
LABELS = jnp.asarray([0, 1, 2, 1])


def moments(images):
    return {"mean": jnp.mean(images, (0, 1, 2)), "var": jnp.var(images, (0, 1, 2))}


def linear(variables, *inputs, train):
    assert not train, "teachers run in inference mode"
    (images,) = inputs
    logits = images.reshape(images.shape[0], -1) @ variables.params["kernel"]
    return Output(logits, variables.stats, moments(images))


def constant(variables, *inputs, train):
    assert not train, "teachers run in inference mode"
    (images,) = inputs
    logits = jnp.broadcast_to(variables.params[None], (images.shape[0], CLASSES))
    return Output(logits, variables.stats, moments(images))


def no_init(key):
    raise NotImplementedError


mixed = jax.jit(ensemble, static_argnums=0)
LINEAR, CONSTANT = Net(no_init, linear), Net(no_init, constant)


def stats(members, mean=0.0):
    return {"mean": jnp.full((members, 1), mean), "var": jnp.ones((members, 1))}


def linear_group(members, seed=1):
    kernels = jax.random.normal(jax.random.key(seed), (members, 4, CLASSES))
    return Variables({"kernel": kernels}, stats(members))


def member(group, index):
    return jax.tree.map(lambda a: a[index], group)


def own_logits(net, group, index):
    return net.apply(member(group, index), IMAGES, train=False).value


def run(nets, groups, weights):
    return mixed(tuple(nets), Teachers(groups, jnp.asarray(weights)), IMAGES, LABELS)


def test_weights_are_shares_of_each_class():
    counts = jnp.asarray([[3, 0, 0], [1, 5, 0]])
    np.testing.assert_allclose(
        label_count_weights(counts), [[0.75, 0, 0], [0.25, 1, 0]], rtol=1e-6
    )


def test_one_teacher_of_weight_one_gives_its_own_logits():
    group = linear_group(1)
    logits, _ = run([LINEAR], (group,), np.ones((1, CLASSES), np.float32))
    np.testing.assert_allclose(logits, own_logits(LINEAR, group, 0), rtol=1e-6)


def test_logits_are_weighted_by_the_label_of_each_image():
    group = linear_group(2)
    weights = np.array([[0.75, 0.0, 0.4], [0.25, 1.0, 0.6]], np.float32)
    logits, _ = run([LINEAR], (group,), weights)
    share = weights[:, LABELS][..., None]
    expected = sum(share[k] * own_logits(LINEAR, group, k) for k in range(2))
    np.testing.assert_allclose(logits, expected, rtol=1e-5)


def test_a_teacher_of_weight_zero_changes_nothing():
    group = linear_group(3)
    weights = np.array([[0.3, 1, 0.5], [0, 0, 0], [0.7, 0, 0.5]], np.float32)
    stranger = Variables(
        {"kernel": group.params["kernel"].at[1].set(1e3)},
        {**group.stats, "mean": group.stats["mean"].at[1].set(1e3)},
    )
    for one, other in zip(
        run([LINEAR], (group,), weights),
        run([LINEAR], (stranger,), weights),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_the_prior_is_averaged_with_each_teachers_mean_weight():
    mean = jnp.asarray([[0.0], [2.0]])
    group = Variables(linear_group(2).params, {**stats(2), "mean": mean})
    # Mean weights 0.5 and 0.25 of 0.75 in all: the third class is unknown to both.
    weights = np.array([[0.75, 0.75, 0], [0.25, 0.5, 0]], np.float32)
    _, prior = run([LINEAR], (group,), weights)
    each = [
        float(losses.batchnorm_statistics(moments(IMAGES), member(group, k).stats))
        for k in range(2)
    ]
    expected = (1.5 * each[0] + 0.75 * each[1]) / 2.25
    np.testing.assert_allclose(prior, expected, rtol=1e-5)


def test_groups_of_different_architectures_take_their_own_weights():
    group = linear_group(2)
    constants = Variables(jnp.asarray([[1.0, 2.0, 3.0]]), stats(1))
    weights = np.array([[0.2, 0.5, 0.0], [0.3, 0.0, 0.1], [0.5, 0.5, 0.9]], np.float32)
    share = weights[:, LABELS][..., None]
    expected = (
        share[0] * own_logits(LINEAR, group, 0)
        + share[1] * own_logits(LINEAR, group, 1)
        + share[2] * np.array([[1.0, 2.0, 3.0]])
    )
    logits, _ = run([LINEAR, CONSTANT], (group, constants), weights)
    np.testing.assert_allclose(logits, expected, rtol=1e-5)


def test_images_get_a_gradient_through_both_results():
    group = linear_group(1)
    ones = jnp.ones((1, CLASSES))

    def results(images):
        return ensemble([LINEAR], Teachers((group,), ones), images, LABELS)

    through_logits = jax.grad(lambda x: jnp.sum(results(x)[0]))(IMAGES)
    kernel = np.asarray(group.params["kernel"][0]).sum(axis=1).reshape(SHAPE)
    np.testing.assert_allclose(through_logits, np.stack([kernel] * 4), rtol=1e-4)
    through_prior = jax.grad(lambda x: results(x)[1])(IMAGES)
    assert jnp.all(jnp.any(through_prior != 0, axis=(1, 2, 3)))


def test_classifiers_of_two_sizes_make_an_ensemble():
    names = ("cnn_small", "cnn_medium")
    nets = [classifier(name, shape=(8, 8, 1), num_classes=2) for name in names]

    def teach(key, images):
        groups = tuple(jax.vmap(net.init)(key[None]) for net in nets)
        teachers = Teachers(groups, jnp.full((2, 2), 0.5))
        return ensemble(nets, teachers, images, jnp.zeros(3, jnp.int32))

    logits, prior = jax.eval_shape(teach, jax.random.key(0), jnp.zeros((3, 8, 8, 1)))
    assert logits.shape == (3, 2)
    assert prior.shape == ()


def test_every_group_needs_its_net():
    with pytest.raises(ValueError, match="zip"):
        run([LINEAR, CONSTANT], (linear_group(1),), np.ones((1, CLASSES), np.float32))
