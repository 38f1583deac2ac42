"""DENSE and Co-Boosting: what an ensemble of teachers asks for."""

import jax
import jax.numpy as jnp
import numpy as np

from ecogen_jax import losses
from ecogen_jax.relay.distillers import co_boosting
from ecogen_jax.relay.ensemble import ensemble
from tests import toy_inversion as toy


def test_hard_cross_entropy_and_its_gradient():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 3)).astype(np.float32)
    labels = np.array([0, 2, 1, 1, 0], np.int32)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    own = softmax[np.arange(5), labels]
    value, grads = jax.value_and_grad(losses.hard_cross_entropy)(
        jnp.asarray(logits), jnp.asarray(labels)
    )
    np.testing.assert_allclose(value, -((1 - own) * np.log(own)).mean(), rtol=1e-5)
    # The factor is a constant of the gradient.
    want = (1 - own)[:, None] * (softmax - np.eye(3)[labels]) / 5
    np.testing.assert_allclose(grads, want, rtol=1e-4, atol=1e-6)


def test_dense_is_pushed_only_where_teacher_and_student_disagree():
    given = toy.hop(toy.ADVERSARIAL, adversarial_mask="disagree")
    given = given._replace(student=toy.TEACHER)
    distiller, received = toy.build("dense", given), toy.teachers()
    teacher = jax.tree.map(lambda a: a[0], received.groups[0])
    made = toy.GENERATOR.init(jax.random.key(0))
    twin = distiller.init(teacher, made, received, jax.random.key(0))
    _, metrics = toy.jitted(distiller)(twin, received, jax.random.key(1))
    assert metrics["adversarial"] == 0


def test_weights_of_co_boosting_begin_alike_and_move_with_every_batch():
    distiller, received = toy.build("co_boosting", toy.hop()), toy.teachers(2)
    learned = toy.begin(distiller, received).extra
    np.testing.assert_allclose(learned.weights, 1 / 2, rtol=1e-6)
    before, _ = toy.run(distiller, received, number=1)
    after, _ = toy.run(distiller, received, number=2)
    assert (before.extra.batches, after.extra.batches) == (1, 2)
    moved = np.abs(before.extra.weights - 1 / 2)
    np.testing.assert_allclose(moved, 0.01, rtol=1e-4)
    moved = np.abs(after.extra.weights - before.extra.weights)
    np.testing.assert_allclose(moved, 0.0099, rtol=1e-4)


def test_images_are_pushed_along_a_random_direction_of_the_answer():
    hop, received = toy.hop(), toy.teachers(2)
    images = jax.random.uniform(jax.random.key(1), (6, 2, 2, 1), maxval=0.9)
    images = images.at[0].set(1.0)
    labels, key = jnp.zeros(6, jnp.int32), jax.random.key(2)
    got = co_boosting.pushed(hop, received, images, labels, key)
    assert got.max() <= 1
    inside = np.asarray(images + 8 / 255 < 1) & np.asarray(images - 8 / 255 > 0)
    np.testing.assert_allclose(np.abs(got - images)[inside], 8 / 255, rtol=1e-3)
    direction = jax.random.uniform(key, (6, 3), minval=-1.0)

    def answer(images):
        logits = ensemble(hop.teachers, received, images, labels).logits
        return jnp.sum(direction * jax.nn.softmax(logits / 4), axis=1)

    assert (answer(got) >= answer(images) - 1e-6)[1:].all()
    other = co_boosting.pushed(hop, received, images, labels, jax.random.key(3))
    assert np.abs(got - other).max() > 0


def test_the_adversary_of_co_boosting_is_soft():
    given = toy.hop(toy.ADVERSARIAL, inner_steps=1)
    found = {}
    for name in ("dense", "co_boosting"):
        distiller, received = toy.build(name, given), toy.teachers()
        state = toy.begin(distiller, received)
        after, metrics = toy.jitted(distiller)(state, received, jax.random.key(1))
        found[name] = after.bank.logits[: toy.BATCH], metrics["adversarial"]
        guess = toy.STUDENT.apply(
            state.student,
            after.bank.images[: toy.BATCH].astype(jnp.float32) / 255,
            train=False,
        ).value
        temperature = {"dense": 1.0, "co_boosting": 3.0}[name]
        want = -losses.distillation(found[name][0], guess, temperature=temperature)
        np.testing.assert_allclose(found[name][1], want, rtol=0.05)
    np.testing.assert_allclose(found["dense"][0], found["co_boosting"][0], rtol=1e-5)
    assert abs(found["dense"][1] / found["co_boosting"][1] - 1) > 0.1
