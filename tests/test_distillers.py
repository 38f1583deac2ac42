"""One contract for every distiller of the registry."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.relay.bank import Bank
from ecogen_jax.relay.distillers import DISTILLERS
from ecogen_jax.relay.distillers.relay import Generation, Study, Weights, draw_labels
from ecogen_jax.relay.ensemble import Teachers
from tests import toy_nets

STUDENT, TEACHER = toy_nets.classifier(5), toy_nets.classifier(6)
GENERATOR = toy_nets.generator()
BATCH, BANK = 16, 40
ALL = Weights(cross_entropy=1.0, batchnorm=1.0, adversarial=1.0, balance=1.0)
ADVERSARIAL = Weights(cross_entropy=0.0, batchnorm=0.0, adversarial=1.0, balance=0.0)
KNOWN = np.array([[1.0, 0.0, 0.3], [0.0, 0.0, 0.7]], np.float32)


@pytest.fixture(params=DISTILLERS)
def name(request):
    return request.param


@functools.cache
def build(name, *, weights=ALL, keep_statistics=False):
    return DISTILLERS[name](
        STUDENT,
        (TEACHER,),
        GENERATOR,
        generation=Generation(
            shape=toy_nets.SHAPE,
            num_classes=toy_nets.CLASSES,
            latent_size=toy_nets.LATENT,
            batch_size=BATCH,
            bank_size=BANK,
            learning_rate=0.05,
            weights=weights,
            adversarial_mask="none",
        ),
        study=Study(
            steps=3,
            total_steps=600,
            learning_rate=0.02,
            temperature=2.0,
            keep_statistics=keep_statistics,
        ),
    )


def begin(distiller, seed=0):
    """A hop's first state."""
    first, second = jax.random.split(jax.random.key(seed))
    return distiller.init(STUDENT.init(first), GENERATOR.init(second))


def teachers(weights=KNOWN):
    """Two teachers that know different classes, and none knows class 1."""
    init = jax.vmap(TEACHER.init)
    group = init(jax.random.split(jax.random.key(7), len(weights)))
    # Sharp logits, so that there is something to learn.
    params = {**group.params, "second": 4 * group.params["second"]}
    return Teachers((group.replace(params=params),), jnp.asarray(weights))


@functools.partial(jax.jit, static_argnums=0)
def hop(step, state, received, keys):
    return jax.lax.scan(lambda s, key: step(s, received, key), state, keys)


def run(distiller, *, steps=2, seed=3):
    """The state after some steps, and the metrics of each."""
    keys = jax.random.split(jax.random.key(seed), steps)
    return hop(distiller.step, begin(distiller), teachers(), keys)


def equal(one, other):
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), one, other)
    return all(jax.tree.leaves(same))


def test_the_same_key_gives_the_same_hop_and_another_key_another(name):
    distiller = build(name)
    (one, _), (again, _) = run(distiller), run(distiller)
    assert equal(one, again)
    other, _ = run(distiller, seed=4)
    for part in ("student", "generator"):
        assert not equal(getattr(one, part), getattr(other, part))


def test_a_step_trains_student_and_generator_and_no_teacher(name):
    distiller, received = build(name), teachers()
    state, before = begin(distiller), jax.tree.map(np.copy, received)
    step = jax.jit(distiller.step)
    after, _ = step(state, received, jax.random.key(0))
    assert equal(received, before)
    assert not equal(after.student.params, state.student.params)
    assert not equal(after.generator.params, state.generator.params)


def test_a_hop_has_no_place_for_real_images(name):
    distiller = build(name)
    assert list(inspect.signature(distiller.init).parameters) == ["taught", "made"]
    step = inspect.signature(distiller.step).parameters
    assert list(step) == ["state", "received", "key"]
    # The state's only images are those of the bank, which a hop starts with empty.
    state = begin(distiller)
    images = [leaf for leaf in jax.tree.leaves(state) if leaf.dtype == np.uint8]
    assert [image.shape for image in images] == [(BANK, *toy_nets.SHAPE)]
    assert isinstance(state.bank, Bank)
    assert not state.bank.images.any()
    assert state.bank.written == 0


def test_the_bank_holds_what_the_generator_made_with_the_teachers_answers(name):
    distiller = build(name)
    state, _ = run(distiller, steps=2)
    assert state.bank.written == 2 * BATCH
    images = np.asarray(state.bank.images)
    assert images[: 2 * BATCH].any(axis=(1, 2, 3)).all()
    assert not images[2 * BATCH :].any()
    assert len(np.unique(images[: 2 * BATCH], axis=0)) > BATCH
    assert np.abs(state.bank.logits[: 2 * BATCH]).max() > 0


def test_labels_are_drawn_only_from_classes_that_a_teacher_knows(name):
    state, _ = run(build(name), steps=5)
    assert state.bank.written == 5 * BATCH
    assert set(np.asarray(state.bank.labels).tolist()) == {0, 2}


def test_the_generator_meets_the_student_in_its_adversarial_term(name):
    distiller = build(name, weights=ADVERSARIAL)
    state = begin(distiller)
    stranger = state.replace(student=begin(distiller, seed=9).student)
    step = jax.jit(distiller.step)
    one, _ = step(state, teachers(), jax.random.key(0))
    other, _ = step(stranger, teachers(), jax.random.key(0))
    # Adam moves by the sign of the gradient, so its first moment tells them apart.
    moments = [s.generator_optimizer[0].mu for s in (one, other)]
    for moment in moments:
        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(moment))
    assert not equal(*moments)


@pytest.mark.parametrize("keep", [True, False])
def test_batchnorm_statistics_are_kept_on_demand(name, keep):
    distiller = build(name, keep_statistics=keep)
    before = begin(distiller)
    after, _ = run(distiller)
    assert equal(before.student.stats, after.student.stats) == keep
    assert not equal(before.student.params, after.student.params)


def test_a_step_is_traced_once(name):
    traces = 0
    distiller = build(name)

    def counted(state, received, key):
        nonlocal traces
        traces += 1
        return distiller.step(state, received, key)

    step, state = jax.jit(counted), begin(distiller)
    for number in range(3):
        state, metrics = step(state, teachers(), jax.random.key(number))
    assert traces == 1
    assert all(value.shape == () for value in metrics.values())


def test_the_student_comes_to_agree_with_its_teacher(name):
    # Without the adversarial term the images do not run away from the student.
    _, metrics = run(build(name, weights=ALL._replace(adversarial=0.0)), steps=150)
    for values in metrics.values():
        assert np.isfinite(values).all()
    losses = np.asarray(metrics["distillation"])
    assert losses[-20:].mean() < 0.3 * losses[:3].mean()


def test_known_classes_are_drawn_equally_often():
    labels = draw_labels(jax.random.key(0), jnp.asarray(KNOWN), 4000)
    shares = np.bincount(labels, minlength=3) / 4000
    np.testing.assert_allclose(shares, [0.5, 0, 0.5], atol=0.03)
