"""One contract for every distiller of the registry.

Each is built twice. `usual` has all its terms, and as teachers two nets of one kind,
of which one alone knows some class; `mixed` has two teachers of different kinds without
BatchNorm, moving averages of moments and of the generator, a reservoir for a bank,
shifted images, and a student that keeps its statistics.
"""

import functools
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from ecogen_jax.relay.augmentation import Augmentation
from ecogen_jax.relay.bank import Bank
from ecogen_jax.relay.distillers import DISTILLERS
from ecogen_jax.relay.distillers.base import Distiller, Hop, Weights
from ecogen_jax.relay.distillers.labels import draw_labels
from ecogen_jax.relay.ensemble import Teachers
from tests import toy_maps
from tests.toy_maps import BANK, BATCH, CLASSES, KNOWN, PIXELS, SHAPE

STUDENT, GENERATOR = toy_maps.classifier(5), toy_maps.generator()
USUAL = (toy_maps.classifier(5),)
MIXED = (
    toy_maps.classifier(4, batchnorm=False),
    toy_maps.classifier(5, batchnorm=False),
)
# What a method is told beside `toy_maps.sizes`. Slower images, so that the student can
# follow: where the adversary is the only term its weight means nothing to Adam, and
# PRE-DFKD's activation term draws images to the edge of what there is.
SLOWER: dict[str, Any] = {"generator_learning_rate": 0.005}
SIZES = {"dfad": SLOWER, "pre_dfkd": SLOWER, "zskt": SLOWER}
LONG = 60


FAST = ("relay", "dafl", "fast")
"""Of each way to make images one; `make test-all` holds all to the contract."""


def marked(names):
    slow = pytest.mark.slow
    return [pytest.param(name, marks=() if name in FAST else slow) for name in names]


@pytest.fixture(params=marked(DISTILLERS))
def name(request):
    return request.param


class Case(NamedTuple):
    """A distiller and its teachers, compiled, and how often `step` was traced."""

    distiller: Distiller
    teachers: Teachers
    first: Any
    step: Any
    traces: list[None]


def weights(name):
    """All the terms of a method but attention, which is that of a single teacher."""
    terms = DISTILLERS[name].terms - {"attention"}
    # A weak adversary, so that the images do not run away from the student.
    return Weights(**{t: 0.1 if t == "adversarial" else 1.0 for t in terms})


def build(name, nets, **changes):
    generation, study = toy_maps.sizes(
        **{"weights": weights(name), **SIZES.get(name, {}), **changes}
    )
    return DISTILLERS[name].build(Hop(STUDENT, nets, GENERATOR, generation, study))


def case(distiller, teachers):
    traces = []

    def first(key, received):
        keys = jax.random.split(key, 3)
        student, generator = STUDENT.init(keys[0]), GENERATOR.init(keys[1])
        return distiller.init(student, generator, received, keys[2])

    def counted(state, received, key):
        traces.append(None)
        return distiller.step(state, received, key)

    return Case(distiller, teachers, jax.jit(first), jax.jit(counted), traces)


@functools.cache
def usual(name):
    return case(build(name, USUAL), sharp(toy_maps.teachers(*USUAL)))


@functools.cache
def mixed(name):
    how: dict[str, Any] = {"batchnorm_momentum": 0.5, "bank_policy": "reservoir"}
    how |= {"augmentation": Augmentation(1, True), "keep_statistics": True}
    if DISTILLERS[name].one_generator:
        how["average"] = 0.9
    return case(build(name, MIXED, **how), toy_maps.teachers(*MIXED))


@functools.cache
def mirrored(name):
    """As `usual`, but the student's images are flipped."""
    distiller = build(name, USUAL, augmentation=Augmentation(flip=True))
    return case(distiller, sharp(toy_maps.teachers(*USUAL)))


def sharp(teachers):
    """The same with logits far apart, so that there is something to learn."""
    groups = tuple(
        group.replace(params={**group.params, "second": 2 * group.params["second"]})
        for group in teachers.groups
    )
    return teachers.replace(groups=groups)


def begin(of, seed=0):
    """A hop's first state."""
    return of.first(jax.random.key(seed), of.teachers)


def hop_keys(seed, steps):
    return jax.random.split(jax.random.key(seed), LONG)[:steps]


@functools.cache
def run(make, name, seed=3, steps=2, student=0):
    """The states before and after some steps, and the metrics of each."""
    of = make(name)
    before = begin(of)
    if student:
        before = before.replace(student=begin(of, student).student)
    state, seen = before, []
    for key in hop_keys(seed, steps):
        state, metrics = of.step(state, of.teachers, key)
        seen.append(metrics)
    return before, state, seen


@functools.cache
def long_run(name):
    """Two seeds at once: students and metrics after each of many steps."""
    of = usual(name)

    def one(keys):
        def step(state, key):
            state, metrics = of.distiller.step(state, of.teachers, key)
            return state, (state.student, metrics)

        return jax.lax.scan(step, begin(of), keys)[1]

    keys = jnp.stack([hop_keys(seed, LONG) for seed in (3, 4)])
    return jax.jit(jax.vmap(one))(keys)


def equal(one, other):
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), one, other)
    return all(jax.tree.leaves(same))


def at(tree, *index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def assert_close(one, other, **tolerance):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def test_the_same_key_gives_the_same_hop_and_another_key_another(name):
    _, one, _ = run(usual, name)
    _, again, _ = run.__wrapped__(usual, name)
    assert equal(one, again)
    _, other, _ = run(usual, name, seed=4)
    assert not equal(one.student.params, other.student.params)
    assert not np.array_equal(one.bank.images, other.bank.images)


def test_a_student_of_flipped_images_becomes_another(name):
    (_, plain, _), (_, other, _) = run(usual, name), run(mirrored, name)
    for leaf, new in zip(
        jax.tree.leaves(plain.student.params),
        jax.tree.leaves(other.student.params),
        strict=True,
    ):
        assert not np.array_equal(leaf, new)


@pytest.mark.parametrize("make", [usual, mixed])
def test_a_hop_moves_the_student_and_no_teacher(name, make):
    of = make(name)
    held = jax.tree.map(np.copy, of.teachers)
    before, after, _ = run(make, name)
    assert equal(of.teachers, held)
    for leaf, new in zip(
        jax.tree.leaves(before.student.params),
        jax.tree.leaves(after.student.params),
        strict=True,
    ):
        assert not np.array_equal(leaf, new)
    # The usual student is new and learns its statistics; the other keeps them.
    assert equal(before.student.stats, after.student.stats) == (make is mixed)


def test_a_generator_comes_out_where_the_registry_says_so(name):
    before, after, _ = run(usual, name)
    changed = not equal(before.generator, after.generator)
    assert changed == DISTILLERS[name].keeps_generator


@pytest.mark.parametrize("make", [usual, mixed])
def test_metrics_are_finite_scalars_and_name_every_term_in_use(name, make):
    _, _, seen = run(make, name)
    terms = DISTILLERS[name].terms - {"attention"}
    for metrics in seen:
        assert set(metrics) >= terms | {"distillation", "one_class_steps"}
        for value in metrics.values():
            assert value.shape == ()
            assert value.dtype == jnp.float32
            assert np.isfinite(value)


def test_a_step_is_traced_once_and_keeps_the_form_of_its_state(name):
    before, after, _ = run(usual, name)
    run(usual, name, seed=4)
    assert len(usual(name).traces) == 1
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)


def test_many_steps_of_two_seeds_at_once_are_those_of_each_alone(name):
    students, metrics = long_run(name)
    for index, seed in enumerate((3, 4)):
        _, after, seen = run(usual, name, seed=seed)
        for step, expected in enumerate(seen):
            assert_close(at(metrics, index, step), expected, rtol=1e-4, atol=1e-5)
        last = at(students, index, len(seen) - 1)
        assert_close(last, after.student, rtol=1e-4, atol=1e-5)


def test_the_student_comes_to_agree_with_its_teacher(name):
    _, metrics = long_run(name)
    for values in metrics.values():
        assert np.isfinite(values).all()
    losses = np.asarray(metrics["distillation"])
    assert (losses[:, -10:].mean(axis=1) < 0.6 * losses[:, :2].mean(axis=1)).all()


def constants(jaxpr):
    """Arrays that a program holds without being given them."""
    for eqn in jaxpr.eqns:
        yield from (v.val for v in eqn.invars if isinstance(v, core.Literal))
        for value in jax.tree.leaves(eqn.params, is_leaf=lambda v: hasattr(v, "eqns")):
            yield from getattr(value, "consts", ())
            if hasattr(value, "eqns"):
                yield from constants(value)


def test_a_hop_has_no_place_for_real_images(name):
    of = usual(name)
    init, step = (inspect.signature(f).parameters for f in of.distiller[:2])
    assert list(init) == ["taught", "made", "received", "key"]
    assert list(step) == ["state", "received", "key"]
    state = begin(of)
    assert isinstance(state.bank, Bank)
    assert not state.bank.images.any()
    assert state.bank.written == 0
    program = jax.make_jaxpr(of.distiller.step)(state, of.teachers, jax.random.key(0))
    # What comes in with the shape of images is the bank, which starts empty.
    stacks = [a for a in program.in_avals if a.shape[-3:] == SHAPE]
    assert [(a.shape, a.dtype) for a in stacks] == [((BANK, *SHAPE), np.uint8)]
    # And nothing as large as one image is built into the program.
    held = [*program.consts, *constants(program.jaxpr)]
    assert max((np.size(a) for a in held), default=0) < PIXELS


def test_the_bank_holds_what_was_made_with_the_teachers_answers(name):
    _, state, _ = run(usual, name, steps=2)
    bank, filled = state.bank, 2 * BATCH
    assert bank.written == filled
    assert bank.images[:filled].any(axis=(1, 2, 3)).all()
    assert not bank.images[filled:].any()
    assert len(np.unique(bank.images[:filled], axis=0)) > BATCH
    assert np.abs(bank.logits[:filled]).max(axis=1).min() > 0


# Their generators are asked for no label: it is what the teachers see in the image.
UNASKED = {"dafl", "zskt", "dfad", "dfq", "pre_dfkd"}


def test_labels_are_asked_of_known_classes_or_are_what_the_teachers_see(name):
    _, state, _ = run(usual, name, steps=4)
    labels = np.asarray(state.bank.labels)
    found = np.argmax(state.bank.logits, axis=1)
    if name in UNASKED:
        np.testing.assert_array_equal(labels, found)
    else:
        assert set(labels.tolist()) <= set(np.flatnonzero(np.sum(KNOWN, axis=0)))


@pytest.mark.parametrize(
    "name",
    marked(name for name, kind in DISTILLERS.items() if "adversarial" in kind.terms),
)
def test_what_makes_the_images_meets_the_student_in_the_adversarial_term(name):
    _, one, (first, *_) = run(usual, name, steps=4)
    _, other, (stranger, *_) = run(usual, name, steps=4, student=9)
    assert first["adversarial"] != stranger["adversarial"]
    assert not np.array_equal(one.bank.images, other.bank.images)


@pytest.mark.parametrize(
    "name", [name for name, kind in DISTILLERS.items() if "attention" in kind.terms]
)
def test_a_single_teacher_is_attended_to(name):
    teachers = toy_maps.teachers(*USUAL, weights=np.ones((1, CLASSES), np.float32))
    students = []
    for weight in (0.0, 1.0):
        given = weights(name)._replace(attention=weight)
        of = case(build(name, USUAL, weights=given), teachers)
        state, metrics = of.step(begin(of), teachers, jax.random.key(0))
        assert all(np.isfinite(value) for value in metrics.values())
        students.append(state.student.params)
    assert not equal(*students)


def test_known_classes_are_drawn_equally_often():
    labels = draw_labels(jax.random.key(0), jnp.asarray(KNOWN), 4000)
    shares = np.bincount(labels, minlength=3) / 4000
    np.testing.assert_allclose(shares, [0.5, 0, 0.5], atol=0.03)
