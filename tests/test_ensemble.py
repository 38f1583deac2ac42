"""Teachers as one: the weights, and what each teacher contributes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import losses
from ecogen_jax.nets.classifier import classifier
from ecogen_jax.nets.functional import Net, Output, Variables
from ecogen_jax.relay.ensemble import (
    Teachers,
    by_class_weights,
    ensemble,
    equal_weights,
    first_moments,
    label_count_weights,
    log_priors,
)

SHAPE, CLASSES = (2, 2, 1), 3
IMAGES = jax.random.uniform(jax.random.key(0), (4, *SHAPE))
LABELS = jnp.asarray([0, 1, 2, 1])


def moments(images):
    return {"mean": jnp.mean(images, (0, 1, 2)), "var": jnp.var(images, (0, 1, 2))}


def linear(variables, *inputs, train):
    assert not train, "teachers run in inference mode"
    (images,) = inputs
    flat = images.reshape(images.shape[0], -1)
    logits = flat @ variables.params["kernel"]
    return Output(logits, variables.stats, moments(images), (images, flat))


def constant(variables, *inputs, train):
    assert not train, "teachers run in inference mode"
    (images,) = inputs
    logits = jnp.broadcast_to(variables.params[None], (images.shape[0], CLASSES))
    return Output(logits, variables.stats, moments(images), (logits,))


def without_batchnorm(variables, *inputs, train):
    output = linear(variables, *inputs, train=train)
    return output._replace(stats={}, moments={})


def no_init(key):
    pytest.fail("an ensemble makes no net")


mixed = jax.jit(ensemble, static_argnums=0, static_argnames="momentum")
LINEAR, CONSTANT = Net(no_init, linear), Net(no_init, constant)
PLAIN = Net(no_init, without_batchnorm)


def stats(members, mean=0.0):
    return {"mean": jnp.full((members, 1), mean), "var": jnp.ones((members, 1))}


def linear_group(members, seed=1):
    kernels = jax.random.normal(jax.random.key(seed), (members, 4, CLASSES))
    return Variables({"kernel": kernels}, stats(members))


def member(group, index):
    return jax.tree.map(lambda a: a[index], group)


def own_logits(net, group, index):
    return net.apply(member(group, index), IMAGES, train=False).value


def run(nets, groups, weights, labels=LABELS, **how):
    teachers = Teachers(groups, jnp.asarray(weights))
    return mixed(tuple(nets), teachers, IMAGES, labels, **how)


def test_weights_are_shares_of_each_class():
    counts = jnp.asarray([[3, 0, 0], [1, 5, 0]])
    np.testing.assert_allclose(
        label_count_weights(counts), [[0.75, 0, 0], [0.25, 1, 0]], rtol=1e-6
    )


def test_equal_weights_are_alike_for_every_class_that_any_teacher_has_seen():
    counts = jnp.asarray([[3, 0, 0], [1, 5, 0]])
    np.testing.assert_allclose(equal_weights(counts), [[0.5, 0.5, 0], [0.5, 0.5, 0]])


def test_one_teacher_of_weight_one_gives_its_own_logits():
    group = linear_group(1)
    logits, *_ = run([LINEAR], (group,), np.ones((1, CLASSES), np.float32))
    np.testing.assert_allclose(logits, own_logits(LINEAR, group, 0), rtol=1e-6)


def test_logits_are_weighted_by_the_label_of_each_image():
    group = linear_group(2)
    weights = np.array([[0.75, 0.0, 0.4], [0.25, 1.0, 0.6]], np.float32)
    logits, *_ = run([LINEAR], (group,), weights)
    share = weights[:, LABELS][..., None]
    expected = sum(share[k] * own_logits(LINEAR, group, k) for k in range(2))
    np.testing.assert_allclose(logits, expected, rtol=1e-5)


def test_an_image_of_a_class_that_no_teacher_knows_gets_the_answer_of_all_teachers():
    group = linear_group(2)
    weights = np.array([[0.75, 0.0, 0.5], [0.25, 0.0, 0.5]], np.float32)
    logits, *_ = run([LINEAR], (group,), weights, jnp.ones_like(LABELS))
    shares = np.mean(weights[:, [0, 2]], axis=1)
    expected = sum(shares[k] * own_logits(LINEAR, group, k) for k in range(2))
    np.testing.assert_allclose(logits, expected, rtol=1e-5)


def test_a_teacher_of_weight_zero_changes_nothing():
    group = linear_group(3)
    weights = np.array([[0.3, 1, 0.5], [0, 0, 0], [0.7, 0, 0.5]], np.float32)
    stranger = Variables(
        {"kernel": group.params["kernel"].at[1].set(1e3)},
        {**group.stats, "mean": group.stats["mean"].at[1].set(1e3)},
    )
    for labels in (LABELS, None):
        one = run([LINEAR], (group,), weights, labels)
        other = run([LINEAR], (stranger,), weights, labels)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_prior_is_averaged_with_each_teachers_mean_weight():
    mean = jnp.asarray([[0.0], [2.0]])
    group = Variables(linear_group(2).params, {**stats(2), "mean": mean})
    # Mean weights 0.5 and 0.25 of 0.75 in all: the third class is unknown to both.
    weights = np.array([[0.75, 0.75, 0], [0.25, 0.5, 0]], np.float32)
    prior = run([LINEAR], (group,), weights).batchnorm
    each = [
        float(losses.batchnorm_statistics(moments(IMAGES), member(group, k).stats))
        for k in range(2)
    ]
    expected = (1.5 * each[0] + 0.75 * each[1]) / 2.25
    np.testing.assert_allclose(prior, expected, rtol=1e-5)


WEIGHTS = np.array([[0.2, 0.5, 0.0], [0.3, 0.0, 0.1], [0.5, 0.5, 0.9]], np.float32)
SHARES = WEIGHTS.mean(axis=1)
CONSTANTS = Variables(jnp.asarray([[1.0, 2.0, 3.0]]), stats(1))


def test_without_labels_each_logit_comes_from_those_who_know_its_class():
    group = linear_group(2)
    # Nobody knows the last class: its logit is averaged with the mean weights.
    weights = np.array([[0.75, 0.25, 0], [0.25, 0.75, 0]], np.float32)
    logits, *_ = run([LINEAR], (group,), weights, labels=None)
    by_class = [[0.75, 0.25, 0.5], [0.25, 0.75, 0.5]]
    expected = sum(
        np.asarray(by_class[k]) * np.asarray(own_logits(LINEAR, group, k))
        for k in range(2)
    )
    np.testing.assert_allclose(logits, expected, rtol=1e-5)


def test_a_teacher_of_one_class_is_believed_by_label_and_weighed_up_by_class():
    # The first teacher says class 0 of anything, the second what it sees.
    certain = Variables(jnp.asarray([[9.0, 0.0, 0.0]]), stats(1))
    seeing = Variables(jnp.asarray([[0.0, 1.0, 12.0]]), stats(1))
    groups, weights = (certain, seeing), np.eye(2, 3, dtype=np.float32)
    weights[1, 2] = 1.0
    zero = jnp.zeros(4, jnp.int32)
    by_label, *_ = run([CONSTANT, CONSTANT], groups, weights, zero)
    by_class, *_ = run([CONSTANT, CONSTANT], groups, weights, None)
    np.testing.assert_allclose(by_label, np.tile([9.0, 0.0, 0.0], (4, 1)))
    np.testing.assert_allclose(by_class, np.tile([9.0, 1.0, 12.0], (4, 1)))


def test_activation_is_averaged_with_each_teachers_mean_weight():
    # Of the last activations alone: the images for one group, (1, 2, 3) for the other.
    groups = (linear_group(2), CONSTANTS)
    seen = run([LINEAR, CONSTANT], groups, WEIGHTS)
    expected = -(SHARES[0] + SHARES[1]) * np.mean(IMAGES) - SHARES[2] * 2.0
    np.testing.assert_allclose(seen.activation, expected, rtol=1e-5)


def test_equal_teachers_without_labels_are_the_mean_of_their_logits():
    groups = (linear_group(2), CONSTANTS)
    weights = equal_weights(jnp.asarray([[3, 0, 0], [1, 5, 0], [0, 0, 2]]))
    each = [own_logits(LINEAR, groups[0], k) for k in range(2)]
    each.append(np.broadcast_to([1.0, 2.0, 3.0], (4, CLASSES)))
    for labels in (LABELS, None):
        logits, *_ = run([LINEAR, CONSTANT], groups, weights, labels)
        np.testing.assert_allclose(logits, np.mean(each, axis=0), rtol=1e-5)


def scattered(members):
    """A group whose members remember different statistics."""
    mean = jnp.arange(1.0, members + 1)[:, None]
    return Variables(linear_group(members).params, {"mean": mean, "var": 2 * mean})


def test_moments_average_the_batches_from_the_teachers_own_statistics():
    groups = (scattered(2), scattered(1))
    batch = jax.tree.map(np.asarray, moments(IMAGES))
    seen, average = None, first_moments(Teachers(groups, jnp.asarray(WEIGHTS)))
    for call in (1, 2):
        seen = run([LINEAR] * 2, groups, WEIGHTS, moments=average, momentum=0.25)
        average = seen.moments
        # What is left of the start, and what has come of the batch.
        old, new = 0.75**call, 1 - 0.75**call
        priors = []
        for group, after in zip(groups, average, strict=True):
            for name in ("mean", "var"):
                expected = old * np.asarray(group.stats[name]) + new * batch[name]
                np.testing.assert_allclose(after[name], expected, rtol=1e-5)
            for k in range(len(after["mean"])):
                own = member(group, k).stats
                priors.append(losses.batchnorm_statistics(member(after, k), own))
        np.testing.assert_allclose(seen.batchnorm, SHARES @ np.array(priors), rtol=1e-5)


def test_the_average_starts_without_loss_and_shares_no_buffer_with_the_teachers():
    group = scattered(2)
    start = first_moments(Teachers((group,), jnp.ones((2, CLASSES))))
    seen = run([LINEAR], (group,), WEIGHTS[:2], moments=start, momentum=0.0)
    np.testing.assert_allclose(seen.batchnorm, 0, atol=1e-5)
    for one, other in zip(
        jax.tree.leaves(start), jax.tree.leaves(group.stats), strict=True
    ):
        np.testing.assert_array_equal(one, other)
        assert one.unsafe_buffer_pointer() != other.unsafe_buffer_pointer()


def test_a_momentum_of_one_keeps_no_history():
    group = scattered(2)
    strange = ({"mean": jnp.full((2, 1), 9.0), "var": jnp.full((2, 1), 9.0)},)
    plain = run([LINEAR], (group,), WEIGHTS[:2])
    given = run([LINEAR], (group,), WEIGHTS[:2], moments=strange, momentum=1.0)
    np.testing.assert_allclose(plain.batchnorm, given.batchnorm, rtol=1e-6)
    for name, batch in moments(IMAGES).items():
        np.testing.assert_allclose(
            plain.moments[0][name][:, 0], np.full(2, batch[0]), rtol=1e-5
        )


def test_a_gradient_reaches_the_images_through_this_batch_alone():
    group = scattered(1)
    one = jnp.ones((1, CLASSES))

    def prior(images, momentum):
        teachers = Teachers((group,), one)
        how = {"moments": first_moments(teachers), "momentum": momentum}
        return ensemble([LINEAR], teachers, images, LABELS, **how).batchnorm

    # With m of the batch and the rest the teacher's own, each difference is m times
    # that of the batch, and so is its norm.
    whole, part = (jax.grad(prior)(IMAGES, m) for m in (1.0, 0.25))
    assert jnp.any(whole != 0)
    np.testing.assert_allclose(part, 0.25 * whole, rtol=1e-4)

    def kept(images):
        teachers = Teachers((group,), one)
        seen = ensemble([LINEAR], teachers, images, LABELS)
        return jnp.sum(seen.moments[0]["mean"])

    assert not jax.grad(kept)(IMAGES).any()


def test_teachers_without_batchnorm_have_no_prior_and_stand_beside_those_with_it():
    plain = Variables(linear_group(2).params, {})
    seen = run([PLAIN], (plain,), WEIGHTS[:2])
    np.testing.assert_array_equal(seen.batchnorm, 0)
    assert jax.tree.leaves(seen.moments) == []
    groups = (plain, scattered(1))
    start = first_moments(Teachers(groups, jnp.asarray(WEIGHTS)))
    seen = run([PLAIN, LINEAR], groups, WEIGHTS, moments=start, momentum=0.5)
    half = {name: (1.0 + batch) / 2 for name, batch in moments(IMAGES).items()}
    half["var"] = half["var"] + 0.5  # the teacher's variance is 2
    own = losses.batchnorm_statistics(half, member(groups[1], 0).stats)
    np.testing.assert_allclose(seen.batchnorm, SHARES[2] * own, rtol=1e-5)


def test_groups_of_different_architectures_take_their_own_weights():
    group = linear_group(2)
    share = WEIGHTS[:, LABELS][..., None]
    expected = (
        share[0] * own_logits(LINEAR, group, 0)
        + share[1] * own_logits(LINEAR, group, 1)
        + share[2] * np.array([[1.0, 2.0, 3.0]])
    )
    logits, *_ = run([LINEAR, CONSTANT], (group, CONSTANTS), WEIGHTS)
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

    logits, prior, *_ = jax.eval_shape(
        teach, jax.random.key(0), jnp.zeros((3, 8, 8, 1))
    )
    assert logits.shape == (3, 2)
    assert prior.shape == ()


def test_every_group_needs_its_net():
    with pytest.raises(ValueError, match="zip"):
        run([LINEAR, CONSTANT], (linear_group(1),), np.ones((1, CLASSES), np.float32))


def test_a_few_images_of_a_class_count_for_more_than_their_share():
    counts = jnp.asarray([[9, 0, 0], [16, 4, 0]])
    np.testing.assert_allclose(
        by_class_weights(counts), [[3 / 7, 0, 0], [4 / 7, 1, 0]], rtol=1e-6
    )


def test_priors_are_shares_of_the_images_and_ten_more_of_each_class():
    priors = log_priors(jnp.asarray([[30, 0, 10], [0, 0, 0]]))
    expected = [[40 / 70, 10 / 70, 20 / 70], [1 / 3, 1 / 3, 1 / 3]]
    np.testing.assert_allclose(np.exp(priors), expected, rtol=1e-6)


def test_under_equal_priors_a_teacher_gives_its_posterior_for_equal_classes():
    likelihood = np.array([0.2, 0.5, 0.05])
    counts = jnp.asarray([[80.0, 10.0, 40.0]])
    seen = (counts[0] + 10) * likelihood  # what a teacher of such data answers
    group = Variables(jnp.log(jnp.asarray(seen, jnp.float32))[None] + 7.0, stats(1))
    teachers = Teachers((group,), jnp.ones((1, CLASSES)), log_priors(counts))
    logits = ensemble([CONSTANT], teachers, IMAGES).logits
    expected = np.tile(likelihood / likelihood.sum(), (4, 1))
    np.testing.assert_allclose(jnp.exp(logits), expected, rtol=1e-5)
    # Who is asked for a class is believed as it is.
    asked = ensemble([CONSTANT], teachers, IMAGES, LABELS).logits
    np.testing.assert_allclose(asked, jnp.tile(group.params, (4, 1)), rtol=1e-6)


def test_under_priors_no_teacher_speaks_louder_for_the_zero_of_its_logits():
    params = jnp.asarray([[1.0, 2.0, 3.0], [3.0, 0.0, 1.0]])
    weights = jnp.asarray([[0.8, 0.3, 0.0], [0.2, 0.7, 1.0]])
    priors = log_priors(jnp.asarray([[5, 2, 0], [1, 8, 9]]))

    def answers(shift):
        group = Variables(params + jnp.asarray(shift)[:, None], stats(2))
        return ensemble([CONSTANT], Teachers((group,), weights, priors), IMAGES).logits

    np.testing.assert_allclose(answers([0.0, 0.0]), answers([5.0, -3.0]), rtol=1e-5)


def test_each_teacher_compares_its_own_mix_of_classes():
    net = classifier("cnn_small", shape=(8, 8, 1), num_classes=CLASSES)
    group = jax.vmap(net.init)(jax.random.split(jax.random.key(0), 2))
    images = jax.random.uniform(jax.random.key(1), (4, 8, 8, 1))
    # With PRIOR_IMAGES more of each class: 5 : 1 : 2, and all alike.
    counts = jnp.asarray([[40, 0, 10], [7, 7, 7]])
    teachers = Teachers((group,), jnp.full((2, CLASSES), 0.5), log_priors(counts))
    run = jax.jit(lambda **how: ensemble([net], teachers, images, **how))
    seen, plain = run(asked=LABELS), run()
    one = member(group, 0)
    # One image each of classes 0 and 2, and two of class 1.
    repeated = images[jnp.asarray([*[0] * 5, 1, *[2] * 2, 3])]
    first = net.apply(one, repeated, train=False).moments
    for ours, theirs in zip(
        jax.tree.leaves(member(seen.moments[0], 0)), jax.tree.leaves(first), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(
        jax.tree.leaves(member(seen.moments[0], 1)),
        jax.tree.leaves(member(plain.moments[0], 1)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen.logits, plain.logits, rtol=1e-5)
    assert abs(float(seen.batchnorm - plain.batchnorm)) > 1e-3
