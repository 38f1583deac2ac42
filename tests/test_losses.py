"""Each loss by hand, and its gradient by finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ecogen_jax import losses

LN2, LN3 = np.log(2), np.log(3)
cross_entropy = jax.jit(losses.cross_entropy)
kl_divergence = jax.jit(losses.kl_divergence, static_argnames="temperature")
distillation = jax.jit(losses.distillation, static_argnames="temperature")
batchnorm_statistics = jax.jit(losses.batchnorm_statistics)
class_balance = jax.jit(losses.class_balance)
js_divergence = jax.jit(losses.js_divergence, static_argnames="temperature")
total_variation = jax.jit(losses.total_variation)
attention = jax.jit(losses.attention)
DIVERGENCES = {
    "kl": lambda t, s: losses.kl_divergence(t, s, 1.0),
    "js": lambda t, s: losses.js_divergence(t, s, 3.0),
    "l1": losses.logit_distance,
}
# p = (3/4, 1/4) against q = (1/2, 1/2), and KL(p || q) of it.
PEAKED, FLAT, FLAT3 = np.array([LN3, 0.0]), np.zeros(2), np.zeros(3)
KL = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)


def logits(*rows):
    return jnp.asarray(np.stack(rows), jnp.float32)


def random_logits(seed, rows=4, classes=3):
    return jax.random.normal(jax.random.key(seed), (rows, classes))


# Seeds and rows: anchors, positives, and a memory of which a part is known.
SIZED = ((6, 4), (7, 4), (8, 5))


def assert_gradient(fn, *arguments):
    # The check calls with NumPy arrays; jit turns them into JAX's.
    fn = jax.jit(fn)
    check_grads(fn, arguments, order=1, modes=["rev"], atol=1e-3, rtol=1e-3, eps=1e-2)


def test_cross_entropy_by_hand():
    loss = cross_entropy(logits(PEAKED, FLAT), jnp.asarray([1, 0]))
    np.testing.assert_allclose(loss, (np.log(4) + LN2) / 2, rtol=1e-6)


def test_kl_divergence_by_hand_is_one_value_an_image():
    values = kl_divergence(logits(PEAKED, FLAT), logits(FLAT, FLAT), 1.0)
    np.testing.assert_allclose(values, [KL, 0.0], rtol=1e-5, atol=1e-7)


def test_kl_divergence_is_of_the_softened_and_scaled_by_temperature_squared():
    values = kl_divergence(logits(3 * PEAKED), logits(FLAT), 3.0)
    np.testing.assert_allclose(values, [9 * KL], rtol=1e-5)


def test_kl_divergence_takes_the_teachers_side():
    values = kl_divergence(logits(FLAT), logits(PEAKED), 1.0)
    reverse = 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)
    np.testing.assert_allclose(values, [reverse], rtol=1e-5)


def test_kl_divergence_is_zero_for_equal_predictions_and_for_no_others():
    teacher, student = random_logits(0, rows=50), random_logits(1, rows=50)
    for equal in (teacher, teacher + 5.0):
        values = kl_divergence(teacher, equal, 2.0)
        np.testing.assert_allclose(values, 0, atol=1e-5)
    assert jnp.all(kl_divergence(teacher, student, 2.0) > 1e-4)


def test_js_divergence_by_hand():
    # p = (3/4, 1/4), q = (1/2, 1/2), m = (5/8, 3/8); softened from thrice the logits.
    values = js_divergence(logits(3 * PEAKED, FLAT), logits(FLAT, FLAT), 3.0)
    p_to_m = 0.75 * np.log(1.2) + 0.25 * np.log(2 / 3)
    q_to_m = 0.5 * np.log(0.8) + 0.5 * np.log(4 / 3)
    np.testing.assert_allclose(values, [(p_to_m + q_to_m) / 2, 0], rtol=1e-5, atol=1e-7)


def test_js_divergence_is_symmetric_at_most_log_2_and_zero_for_equal_predictions():
    one, other = 9 * random_logits(0, rows=50), 9 * random_logits(1, rows=50)
    values = js_divergence(one, other, 1.0)
    np.testing.assert_allclose(values, js_divergence(other, one, 1.0), rtol=1e-4)
    assert jnp.all(values > 0)
    assert jnp.all(values < LN2 + 1e-6)
    np.testing.assert_allclose(js_divergence(one, one + 5.0, 1.0), 0, atol=1e-6)
    apart = js_divergence(logits([99.0, 0.0]), logits([0.0, 99.0]), 1.0)
    np.testing.assert_allclose(apart, [LN2], rtol=1e-5)


def test_logit_distance_is_the_mean_difference_of_each_image():
    values = losses.logit_distance(
        logits([1.0, -2.0, 0.0], FLAT3), logits([0.0, 2.0, 1.0], FLAT3)
    )
    np.testing.assert_allclose(values, [2.0, 0.0], rtol=1e-6)


def test_one_hot_is_the_cross_entropy_with_the_largest_class():
    loss = losses.one_hot(logits(PEAKED, -PEAKED, FLAT))
    np.testing.assert_allclose(loss, (2 * np.log(4 / 3) + LN2) / 3, rtol=1e-5)
    assert losses.one_hot(logits([50.0, 0.0])) < 1e-6


def test_activation_rewards_excited_features():
    features = jnp.asarray([[1.0, -2.0], [0.0, 5.0]])
    np.testing.assert_allclose(losses.activation(features), -2.0)


def image(rows):
    return jnp.asarray(rows, jnp.float32)[None, :, :, None]


def test_total_variation_by_hand_in_its_four_directions():
    # Down (2, 4), across (1, 3), falling (5), rising (1).
    loss = total_variation(image([[0.0, 1.0], [2.0, 5.0]]))
    expected = np.sqrt(20) + np.sqrt(10) + 5 + 1
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_total_variation_takes_one_norm_of_the_whole_batch_and_none_of_flat_images():
    one = image([[0.0, 1.0], [2.0, 5.0]])
    four = jnp.concatenate([one] * 4)
    np.testing.assert_allclose(
        total_variation(four), 2 * total_variation(one), rtol=1e-5
    )
    flat, grad = jax.value_and_grad(total_variation)(jnp.full((2, 4, 4, 1), 0.3))
    np.testing.assert_allclose(flat, 0, atol=1e-5)
    assert jnp.all(jnp.isfinite(grad))


def maps(seed, *shapes):
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return tuple(map(jax.random.normal, keys, shapes))


def test_attention_by_hand():
    # Mean squares (1, 4) against (2, 1), over two positions of two channels.
    teacher = jnp.asarray([1.0, 1.0, 2.0, 2.0]).reshape(1, 1, 2, 2)
    student = jnp.asarray([2.0, 0.0, 1.0, -1.0]).reshape(1, 1, 2, 2)
    first, second = np.array([1, 4]) / np.sqrt(17), np.array([2, 1]) / np.sqrt(5)
    expected = np.mean((first - second) ** 2)
    np.testing.assert_allclose(attention((teacher,), (student,)), expected, rtol=1e-5)
    twice = attention((teacher, teacher), (student, student))
    np.testing.assert_allclose(twice, 2 * expected, rtol=1e-5)


def test_attention_heeds_neither_scale_nor_sign_nor_the_number_of_channels():
    (teacher,) = maps(0, (2, 3, 4, 5))
    (student,) = maps(1, (2, 3, 4, 6))
    loss = attention((teacher,), (student,))
    scales = jnp.asarray([3.0, 0.2]).reshape(2, 1, 1, 1)  # each image by itself
    changed = (-scales * teacher)[..., ::-1]
    np.testing.assert_allclose(attention((changed,), (student,)), loss, rtol=1e-4)
    doubled = jnp.concatenate([teacher, teacher], axis=-1)
    np.testing.assert_allclose(attention((doubled,), (student,)), loss, rtol=1e-4)
    np.testing.assert_allclose(attention((changed,), (teacher,)), 0, atol=1e-8)
    assert loss > 1e-3


@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        ([(2, 4, 4, 3)], [(2, 2, 2, 3)]),
        ([(2, 4, 4, 3)], [(2, 4, 4, 3), (2, 2, 2, 3)]),
        ([], []),
    ],
)
def test_attention_between_maps_of_different_sizes_is_refused(teacher, student):
    with pytest.raises(ValueError, match=r"equal size.*one family.*attention to 0"):
        losses.attention(maps(0, *teacher), maps(1, *student))


def test_distillation_is_the_batch_mean():
    loss = distillation(logits(2 * PEAKED, FLAT), logits(FLAT, FLAT), temperature=2.0)
    np.testing.assert_allclose(loss, 4 * KL / 2, rtol=1e-5)


def layer(mean, var):
    return {"mean": jnp.asarray(mean), "var": jnp.asarray(var)}


def test_batchnorm_statistics_adds_norms_over_layers():
    moments = {"a": layer([3.0, 4.0], [1.0, 2.0]), "b": layer([1.0], [0.0])}
    stats = {"a": layer([0.0, 0.0], [1.0, 0.0]), "b": layer([-1.0], [7.0])}
    loss = batchnorm_statistics(moments, stats)
    np.testing.assert_allclose(loss, 5 + 2 + 2 + 7, rtol=1e-6)


def test_a_net_without_batchnorm_has_no_batchnorm_loss():
    np.testing.assert_array_equal(losses.batchnorm_statistics({}, {}), 0.0)


def test_batchnorm_statistics_has_a_finite_gradient_at_its_minimum():
    stats = {"a": layer([0.3, 0.4], [1.0, 2.0])}
    loss, grad = jax.value_and_grad(batchnorm_statistics)(stats, stats)
    np.testing.assert_allclose(loss, 0, atol=1e-5)
    assert all(jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(grad))


def test_class_balance_by_hand():
    half = np.log([[0.9, 0.1], [0.3, 0.7]])
    expected = 0.6 * np.log(0.6) + 0.4 * np.log(0.4)
    np.testing.assert_allclose(class_balance(logits(*half)), expected, rtol=1e-5)


def test_class_balance_is_least_when_balanced_and_greatest_for_one_class():
    balanced = class_balance(50 * jnp.eye(3))
    np.testing.assert_allclose(balanced, -LN3, rtol=1e-5)
    one_class = class_balance(jnp.tile(jnp.asarray([[50.0, 0, 0]]), (3, 1)))
    np.testing.assert_allclose(one_class, 0, atol=1e-5)
    assert balanced < class_balance(random_logits(0)) < one_class


# The first image is agreed on, the second is not; both have a divergence.
TEACHER = logits([LN3, 0.0], [LN3, 0.0])
STUDENT = logits([LN3 / 9, 0.0], [0.0, LN3])
AGREED, DISPUTED = (float(v) for v in kl_divergence(TEACHER, STUDENT, 1.0))


@functools.partial(jax.jit, static_argnames=("mask", "kind"))
def adversarial(teacher, student, *, mask, kind="kl"):
    apart = DIVERGENCES[kind](teacher, student)
    return losses.adversarial(apart, teacher, student, mask=mask)


def test_the_disputed_image_diverges_as_by_hand():
    np.testing.assert_allclose(DISPUTED, 0.5 * LN3, rtol=1e-5)
    assert AGREED > 0.01


@pytest.mark.parametrize(
    ("mask", "kept"),
    [("none", AGREED + DISPUTED), ("agree", AGREED), ("disagree", DISPUTED)],
)
def test_adversarial_rewards_only_the_images_of_its_mask(mask, kept):
    loss = adversarial(TEACHER, STUDENT, mask=mask)
    np.testing.assert_allclose(loss, -kept / 2, rtol=1e-5)


def test_adversarial_takes_any_divergence_as_it_is():
    given = jnp.asarray([7.0, 5.0])
    for mask, kept in (("none", 12), ("agree", 7), ("disagree", 5)):
        loss = losses.adversarial(given, TEACHER, STUDENT, mask=mask)
        np.testing.assert_allclose(loss, -kept / 2)


def test_an_unknown_mask_is_named_with_what_is_allowed():
    with pytest.raises(ValueError, match="'some'; allowed: none, agree, disagree"):
        adversarial(TEACHER, STUDENT, mask="some")


@pytest.mark.parametrize("kind", DIVERGENCES)
@pytest.mark.parametrize("argument", [0, 1])
def test_adversarial_reaches_the_generator_through_both_nets(argument, kind):
    grad = jax.grad(adversarial, argnums=argument)(
        TEACHER, STUDENT, mask="none", kind=kind
    )
    assert jnp.all(jnp.sum(jnp.abs(grad), axis=-1) > 1e-3)


def test_gradients_by_finite_differences():
    teacher, student = random_logits(2), random_logits(3)
    labels = jnp.asarray([0, 2, 1, 1])
    assert_gradient(lambda s: cross_entropy(s, labels), student)
    assert_gradient(lambda t, s: distillation(t, s, temperature=4.0), teacher, student)
    assert_gradient(class_balance, student)
    assert_gradient(losses.one_hot, student)
    assert_gradient(losses.activation, student)


@pytest.mark.parametrize("kind", DIVERGENCES)
@pytest.mark.parametrize("mask", losses.ADVERSARIAL_MASKS)
def test_adversarial_gradient_by_finite_differences(mask, kind):
    def loss(teacher, student):
        return adversarial(teacher, student, mask=mask, kind=kind)

    # Off the kink of the absolute value.
    assert_gradient(loss, TEACHER, STUDENT - 0.2)


def test_gradients_of_losses_on_maps_by_finite_differences():
    (images,) = maps(4, (2, 4, 3, 2))
    assert_gradient(total_variation, images)
    (student,) = maps(5, (2, 4, 3, 3))
    assert_gradient(lambda a, b: attention((a,), (b,)), images, student)


def test_info_nce_gradient_by_finite_differences():
    known = jnp.asarray([True, False, True, True, False])

    def loss(anchors, positives, negatives):
        scale = {"known": known, "temperature": 0.5}
        return losses.info_nce(anchors, positives, negatives, **scale)

    assert_gradient(loss, *(random_logits(seed, rows) for seed, rows in SIZED))


def test_batchnorm_statistics_gradient_by_finite_differences():
    moments = {"a": layer([0.3, -0.4], [1.0, 2.0]), "b": layer([0.7], [0.2])}
    stats = {"a": layer([0.9, 0.4], [0.1, 1.0]), "b": layer([0.1], [1.2])}
    assert_gradient(batchnorm_statistics, moments, stats)
