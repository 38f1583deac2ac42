"""Each loss by hand, and its gradient by finite differences."""

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
adversarial = jax.jit(losses.adversarial, static_argnames="mask")
# p = (3/4, 1/4) against q = (1/2, 1/2), and KL(p || q) of it.
PEAKED, FLAT = np.array([LN3, 0.0]), np.zeros(2)
KL = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)


def logits(*rows):
    return jnp.asarray(np.stack(rows), jnp.float32)


def random_logits(seed, rows=4, classes=3):
    return jax.random.normal(jax.random.key(seed), (rows, classes))


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


def test_an_unknown_mask_is_named_with_what_is_allowed():
    with pytest.raises(ValueError, match="'some'; allowed: none, agree, disagree"):
        adversarial(TEACHER, STUDENT, mask="some")


@pytest.mark.parametrize("argument", [0, 1])
def test_adversarial_reaches_the_generator_through_both_nets(argument):
    grad = jax.grad(adversarial, argnums=argument)
    per_image = jnp.sum(jnp.abs(grad(TEACHER, STUDENT, mask="none")), axis=-1)
    assert jnp.all(per_image > 1e-3)


def test_gradients_by_finite_differences():
    teacher, student = random_logits(2), random_logits(3)
    labels = jnp.asarray([0, 2, 1, 1])
    assert_gradient(lambda s: cross_entropy(s, labels), student)
    assert_gradient(lambda t, s: distillation(t, s, temperature=4.0), teacher, student)
    assert_gradient(class_balance, student)


@pytest.mark.parametrize("mask", losses.ADVERSARIAL_MASKS)
def test_adversarial_gradient_by_finite_differences(mask):
    assert_gradient(lambda t, s: adversarial(t, s, mask=mask), TEACHER, STUDENT)


def test_batchnorm_statistics_gradient_by_finite_differences():
    moments = {"a": layer([0.3, -0.4], [1.0, 2.0]), "b": layer([0.7], [0.2])}
    stats = {"a": layer([0.9, 0.4], [0.1, 1.0]), "b": layer([0.1], [1.2])}
    assert_gradient(batchnorm_statistics, moments, stats)
