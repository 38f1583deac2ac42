"""The student's half of the engine: one step, and many on the bank."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import keys, losses
from ecogen_jax.nets.classifier import to_bytes, to_unit
from ecogen_jax.nets.functional import Net, Output, Variables
from ecogen_jax.relay import bank as banks
from ecogen_jax.relay.augmentation import Augmentation
from ecogen_jax.relay.distillers import engine
from ecogen_jax.relay.distillers.base import Hop
from ecogen_jax.relay.ensemble import Teachers
from ecogen_jax.relay.optimizer import descend
from tests import toy_maps
from tests.toy_maps import BATCH, CLASSES, SHAPE

STUDENT, TEACHER = toy_maps.classifier(5), toy_maps.classifier(6)
TEACHERS = toy_maps.teachers(TEACHER)
RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.random((BATCH, *SHAPE)), jnp.float32)
LABELS = jnp.asarray([0, 2, 2, 0, 2, 0])
TARGET = jnp.asarray(RNG.normal(size=(BATCH, CLASSES)), jnp.float32)


def hop(student=STUDENT, teacher=TEACHER, **changes):
    sizes = toy_maps.sizes(**changes)
    return Hop(student, (teacher,), toy_maps.generator(), *sizes)


def begin(of, teachers):
    first, second = jax.random.split(jax.random.key(0))
    made = of.generator.init(second)
    return engine.begin(of, of.student.init(first), made, teachers)


def equal(one, other):
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), one, other)
    return all(jax.tree.leaves(same))


@pytest.mark.parametrize("keep", [False, True])
def test_teach_is_a_step_of_adam_and_runs_batchnorm_as_the_hop_says(keep):
    of = hop(keep_statistics=keep)
    state = begin(of, TEACHERS)

    def loss(output):
        return losses.distillation(TARGET, output.value, temperature=2.0)

    def objective(params):
        variables = Variables(params, state.student.stats)
        return loss(STUDENT.apply(variables, IMAGES, train=not keep))

    @jax.jit
    def both(state):
        by_hand = jax.value_and_grad(objective)(state.student.params)
        return engine.teach(of, state, IMAGES, loss), by_hand

    (after, value), (expected, grads) = both(state)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    # The first step of Adam is the rate times the sign of the gradient.
    for name, grad in grads.items():
        step = np.asarray(after.student.params[name] - state.student.params[name])
        steep = np.abs(grad) > 1e-4
        assert steep.any()
        np.testing.assert_allclose(
            step[steep], -0.02 * np.sign(grad)[steep], rtol=1e-2, atol=1e-5
        )
    assert equal(after.student.stats, state.student.stats) == keep


def test_the_students_rate_falls_over_the_whole_hop():
    # Under a steady gradient a step of Adam is the rate itself.
    tx = engine.student_adam(hop(total_steps=4, learning_rate=0.1))

    def step(state, _):
        update, state = descend(tx, jnp.ones(()), state, jnp.zeros(()))
        return state, -update

    _, rates = jax.jit(
        lambda: jax.lax.scan(step, tx.init(jnp.zeros(())), None, length=5)
    )()
    share = 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * np.arange(5) / 4))
    np.testing.assert_allclose(rates, 0.1 * share, rtol=1e-4)


# Teachers and a student that are linear in the pixels: what a shift does is plain.
def linear(variables, *inputs, train):
    (images,) = inputs
    flat = images.reshape(images.shape[0], -1)
    return Output(flat @ variables.params, {}, {}, (flat,))


LINEAR = Net(
    lambda key: Variables(jax.random.normal(key, (toy_maps.PIXELS, CLASSES)), {}),
    linear,
)
PLANTED = 99.0


def study(of, loss):
    """Student steps on a bank of one image, whose stored logits nobody gave.

    Its only bright pixel is the first.
    """
    teachers = Teachers((jax.vmap(LINEAR.init)(KEYS),), jnp.full((2, CLASSES), 0.5))
    state = begin(of, teachers)
    images = np.zeros((BATCH, *SHAPE), np.uint8)
    images[:, 0, 0] = 255
    answers = jnp.full((BATCH, CLASSES), PLANTED)
    bank = banks.write(state.bank, jnp.asarray(images), LABELS, answers)
    matrix = jnp.mean(teachers.groups[0].params, axis=0)
    steps = engine.study_bank(of, lambda *given: loss(matrix, *given))
    _, value = jax.jit(steps)(replace(state, bank=bank), teachers, jax.random.key(5))
    return value


KEYS = jax.random.split(jax.random.key(8), 2)


@pytest.mark.parametrize("shift", [0, 1])
def test_the_teachers_are_asked_anew_about_images_that_were_shifted(shift):
    of = hop(student=LINEAR, teacher=LINEAR, augmentation=Augmentation(shift), steps=3)

    def far_from_the_teachers(matrix, target, output):
        (pixels,) = output.activations
        return jnp.max(jnp.abs(target - pixels @ matrix))

    def first_pixel(matrix, target, output):
        return jnp.mean(output.activations[0][:, 0])

    def planted(matrix, target, output):
        return jnp.mean(target == PLANTED, dtype=jnp.float32)

    far, bright, old = (
        float(study(of, loss)) for loss in (far_from_the_teachers, first_pixel, planted)
    )
    if shift:
        assert far < 1e-5
        assert old == 0
        assert 0.1 < bright < 0.9  # 4 in 9 on the mean
    else:
        assert far > 10
        assert old == 1
        assert bright == 1


def test_study_bank_takes_its_steps_one_after_the_other_and_gives_their_mean_loss():
    of = hop(steps=3)
    state = begin(of, TEACHERS)
    bank = banks.write(state.bank, to_bytes(IMAGES), LABELS, TARGET)
    state = replace(state, bank=bank)
    loss = engine.softened(of)

    @jax.jit
    def one(state, key):
        shown, _, target = banks.sample(state.bank, key, BATCH)
        return engine.teach(of, state, to_unit(shown), lambda out: loss(target, out))

    by_hand, values = state, []
    root = keys.stream(jax.random.key(2), "student")
    for key in jax.random.split(root, 3):
        by_hand, value = one(by_hand, key)
        values.append(float(value))
    step = jax.jit(engine.study_bank(of, loss))
    after, value = step(state, TEACHERS, jax.random.key(2))
    np.testing.assert_allclose(value, np.mean(values), rtol=1e-5)
    for a, b in zip(
        jax.tree.leaves(after.student), jax.tree.leaves(by_hand.student), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert not equal(after.student.params, state.student.params)
