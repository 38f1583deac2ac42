"""The parts that distillers are put together from, each against a few lines by hand."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ecogen_jax import losses
from ecogen_jax.nets.classifier import classifier
from ecogen_jax.relay.distillers import engine
from ecogen_jax.relay.distillers.base import Hop, Weights
from ecogen_jax.relay.ensemble import Teachers, ensemble, log_priors
from tests import toy_maps
from tests.toy_maps import BANK, BATCH, CLASSES, LATENT, SHAPE

STUDENT, TEACHER = toy_maps.classifier(5), toy_maps.classifier(6)
GENERATOR = toy_maps.generator()
ALL = Weights(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
SEVEN = ALL._fields[:7]


def hop(student=STUDENT, **changes):
    """A hop with all terms; `changes` are of `Generation` or of `Study`."""
    sizes = toy_maps.sizes(**{"weights": ALL, **changes})
    return Hop(student, (TEACHER,), GENERATOR, *sizes)


def begin(of, teachers):
    first, second = jax.random.split(jax.random.key(0))
    return engine.begin(of, of.student.init(first), GENERATOR.init(second), teachers)


RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.random((BATCH, *SHAPE)), jnp.float32)
LABELS = jnp.asarray([0, 2, 2, 0, 2, 0])
KEY = jax.random.key(0)
TEACHERS = toy_maps.teachers(TEACHER)


def equal(one, other):
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), one, other)
    return all(jax.tree.leaves(same))


def test_a_hop_begins_with_nothing_remembered():
    of = hop()
    state = begin(of, TEACHERS)
    assert state.bank.images.shape == (BANK, *SHAPE)
    assert not state.bank.images.any()
    assert state.moments is None
    assert int(state.one_class_steps) == 0
    kept = begin(hop(batchnorm_momentum=0.5), TEACHERS).moments
    assert equal(kept, (TEACHERS.groups[0].stats,))


def test_labels_and_noise_are_drawn_from_streams_of_their_own():
    of = hop(batch_size=400)
    asked = engine.draw(of, TEACHERS, jax.random.key(0))
    assert asked.latent.shape == (400, LATENT)
    assert abs(float(jnp.mean(asked.latent))) < 0.15
    np.testing.assert_allclose(jnp.std(asked.latent), 1, atol=0.1)
    shares = np.bincount(asked.labels, minlength=CLASSES) / 400
    np.testing.assert_allclose(shares, [0.5, 0, 0.5], atol=0.1)
    other = engine.draw(of, TEACHERS, jax.random.key(1))
    assert not np.array_equal(asked.latent, other.latent)
    assert not np.array_equal(asked.labels, other.labels)


def terms_by_hand(of, state, labels, divergence):
    """Each term from the logits of teachers and student."""
    seen = ensemble(of.teachers, TEACHERS, IMAGES, labels)
    student = of.student.apply(state.student, IMAGES, train=False).value
    return seen.logits, {
        "cross_entropy": losses.cross_entropy(seen.logits, LABELS),
        "one_hot": losses.one_hot(seen.logits),
        "batchnorm": seen.batchnorm,
        "activation": seen.activation,
        "adversarial": -jnp.mean(divergence(seen.logits, student)),
        "balance": losses.class_balance(seen.logits),
        "total_variation": losses.total_variation(IMAGES),
    }


@pytest.mark.parametrize(
    ("how", "labels", "divergence"),
    [
        ({}, LABELS, lambda t, s: losses.kl_divergence(t, s, 1.0)),
        (
            {"asks": False, "divergence": "js", "temperature": 3.0},
            None,
            lambda t, s: losses.js_divergence(t, s, 3.0),
        ),
        ({"divergence": "l1"}, LABELS, losses.logit_distance),
    ],
    ids=["kl", "js", "l1"],
)
def test_judge_gives_every_term_unweighted(how, labels, divergence):
    of = hop()
    state = begin(of, TEACHERS)

    def both():
        made = engine.judge(of, TEACHERS, state, IMAGES, LABELS, **how)
        return made, terms_by_hand(of, state, labels, divergence)

    made, (logits, expected) = jax.jit(both)()
    assert set(made.terms) == set(SEVEN)
    for name, value in expected.items():
        np.testing.assert_allclose(made.terms[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(made.logits, logits, rtol=1e-5)
    np.testing.assert_array_equal(made.images, IMAGES)
    np.testing.assert_array_equal(made.labels, LABELS)
    assert made.moments is None


@pytest.mark.parametrize("asks", [True, False])
def test_statistics_are_those_of_a_teachers_own_mix_where_classes_are_asked_for(asks):
    net = classifier("cnn_small", shape=(8, 8, 1), num_classes=CLASSES)
    group = jax.vmap(net.init)(jax.random.split(jax.random.key(0), 2))
    counts = jnp.asarray([[90, 0, 5], [0, 60, 0]])
    teachers = Teachers((group,), jnp.full((2, CLASSES), 0.5), log_priors(counts))
    images = jax.random.uniform(jax.random.key(1), (len(LABELS), 8, 8, 1))
    of = hop(student=net, weights=Weights(batchnorm=1.0), by_class=True)
    of = of._replace(teachers=(net,))

    def all_three():
        state = begin(of, teachers)
        made = engine.judge(of, teachers, state, images, LABELS, asks=asks)
        seen = [ensemble([net], teachers, images, asked=a) for a in (LABELS, None)]
        return made.terms["batchnorm"], *(each.batchnorm for each in seen)

    found, own, alike = jax.jit(all_three)()
    assert abs(own - alike) > 1e-3
    np.testing.assert_allclose(found, own if asks else alike, rtol=1e-5)


@pytest.mark.parametrize("left_out", SEVEN)
def test_judge_leaves_out_a_term_of_weight_0(left_out):
    of = hop(weights=ALL._replace(**{left_out: 0.0}))
    state = begin(of, TEACHERS)
    made = jax.eval_shape(
        lambda x: engine.judge(of, TEACHERS, state, x, LABELS), IMAGES
    )
    assert set(made.terms) == set(SEVEN) - {left_out}


def refuses(variables, *inputs, train):
    raise AssertionError("the student was asked")


def test_without_an_adversarial_term_the_student_is_not_asked():
    of = hop(student=STUDENT._replace(apply=refuses), weights=Weights(one_hot=1.0))
    state = begin(of, TEACHERS)
    made = jax.jit(lambda x: engine.judge(of, TEACHERS, state, x, LABELS))(IMAGES)
    assert set(made.terms) == {"one_hot"}
    of = of._replace(generation=of.generation._replace(weights=ALL))
    with pytest.raises(AssertionError, match="was asked"):
        engine.judge(of, TEACHERS, state, IMAGES, LABELS)


@pytest.mark.parametrize("divergence", ["kl", "js", "l1"])
def test_the_adversarial_gradient_of_the_images_passes_through_the_student(divergence):
    def gradient(student):
        of = hop(student=student, weights=Weights(adversarial=1.0))
        state = begin(of, TEACHERS)

        def loss(images):
            made = engine.judge(
                of, TEACHERS, state, images, LABELS, divergence=divergence
            )
            return made.terms["adversarial"]

        return jax.jit(jax.grad(loss))(IMAGES)

    def stopped(variables, *inputs, train):
        return jax.lax.stop_gradient(STUDENT.apply(variables, *inputs, train=train))

    through = gradient(STUDENT) - gradient(STUDENT._replace(apply=stopped))
    assert jnp.all(jnp.max(jnp.abs(through), axis=(1, 2, 3)) > 1e-4)


def test_judge_carries_the_moving_average_on():
    of = hop(batchnorm_momentum=0.25)
    state = begin(of, TEACHERS)
    judge = jax.jit(
        lambda state: engine.judge(of, TEACHERS, state, IMAGES, LABELS).moments
    )
    (first,) = judge(state)
    (second,) = judge(replace(state, moments=(first,)))
    start = TEACHERS.groups[0].stats
    batch = jax.tree.map(lambda a, b: (a - 0.75 * b) / 0.25, first, start)
    expected = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, first, batch)
    for one, other in zip(
        jax.tree.leaves(second), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert not equal(first, start)


def test_weighted_adds_each_term_times_its_weight():
    terms = {"one_hot": jnp.asarray(0.5), "balance": jnp.asarray(-2.0)}
    np.testing.assert_allclose(engine.weighted(ALL, terms), 2 * 0.5 + 6 * -2.0)


def test_the_objective_of_fresh_images_is_the_weighted_sum_of_what_it_made():
    of = hop(weights=Weights(cross_entropy=0.5, batchnorm=2.0))
    state = begin(of, TEACHERS)
    objective = jax.jit(engine.fresh_images(of, TEACHERS, state))
    loss, made = objective(state.generator.params, jax.random.key(3))
    terms = made.terms
    expected = 0.5 * terms["cross_entropy"] + 2.0 * terms["batchnorm"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    asked = engine.draw(of, TEACHERS, jax.random.key(3))
    images = GENERATOR.apply(state.generator, *asked, train=True).value
    np.testing.assert_allclose(made.images, images, rtol=1e-5)
    np.testing.assert_array_equal(made.labels, asked.labels)


# An uneven bowl, steep enough for Adam at this rate to overshoot again and again.
TARGET, STEEP, RATE = np.array([0.3, -0.2]), np.array([1.0, 8.0]), 0.4


def bowl(params, key):
    """A loss by hand; the batch holds the parameters that it was made of."""
    noise = jax.random.uniform(key, ())
    gap = params - jnp.asarray(TARGET, jnp.float32)
    loss = jnp.sum(jnp.asarray(STEEP, jnp.float32) * jnp.square(gap))
    logits = jnp.broadcast_to(params[None], (BATCH, 2))
    terms = {"one_hot": loss}
    return loss + noise, engine.Made(IMAGES, LABELS, logits, terms, None)


def adam_by_hand(start, steps):
    """The parameters before each step, and after the last."""
    x, m, v, path = start, 0.0, 0.0, [start]
    for step in range(1, steps + 1):
        grad = 2 * STEEP * (x - TARGET)
        m, v = 0.5 * m + 0.5 * grad, 0.999 * v + 0.001 * grad**2
        unbiased = m / (1 - 0.5**step), v / (1 - 0.999**step)
        x = x - RATE * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
        path.append(x)
    return np.array(path)


def test_invert_is_adam_and_keeps_the_batch_of_the_least_loss():
    steps, start, key = 12, np.array([1.0, 1.0]), jax.random.key(0)
    tx = optax.adam(RATE, b1=0.5)
    run = jax.jit(lambda x: engine.invert(bowl, tx, x, key, steps=steps))
    params, best = run(jnp.asarray(start, jnp.float32))
    path = adam_by_hand(start, steps)
    np.testing.assert_allclose(params, path[-1], rtol=1e-3, atol=1e-4)
    noise = [float(jax.random.uniform(k, ())) for k in jax.random.split(key, steps)]
    bare = np.sum(STEEP * (path - TARGET) ** 2, axis=1)
    least = int(np.argmin(bare[:-1] + noise))
    assert 0 < least < steps - 1
    np.testing.assert_allclose(best.logits[0], path[least], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(best.terms["one_hot"], bare[least], rtol=1e-2)


@pytest.mark.parametrize("start", [np.nan, 1e30])
def test_an_inversion_that_diverges_shows_it(start):
    tx, key = optax.adam(RATE, b1=0.5), jax.random.key(0)
    _, best = engine.invert(bowl, tx, jnp.asarray([start, 1.0]), key, steps=3)
    assert not np.isfinite(best.terms["one_hot"])


def test_a_finite_loss_does_not_hide_an_infinite_one_before_it():
    def jumps(params, key):
        loss, made = bowl(params, key)
        first = params[0] > 0.99  # the gradient is that of the bowl, and leads away
        return loss + jnp.where(jax.lax.stop_gradient(first), jnp.inf, 0.0), made

    tx, start = optax.adam(RATE, b1=0.5), jnp.asarray([1.0, 1.0])
    _, best = engine.invert(jumps, tx, start, jax.random.key(0), steps=3)
    np.testing.assert_array_equal(best.logits[0], start)


def test_improve_is_one_step_of_descent():
    tx, start = optax.sgd(0.1), jnp.asarray([1.0, 1.0])
    params, _, made = engine.improve(bowl, tx, start, tx.init(start), jax.random.key(0))
    expected = 1.0 - 0.1 * 2 * STEEP * (1.0 - TARGET)
    np.testing.assert_allclose(params, expected, rtol=1e-5)
    np.testing.assert_array_equal(made.logits[0], start)


def made(logits, images=IMAGES):
    logits = jnp.asarray(logits, jnp.float32)
    return engine.Made(images, LABELS, logits, {"balance": jnp.ones(())}, None)


ONE_CLASS = np.tile([[0.0, 3.0, 1.0]], (BATCH, 1))
TWO_CLASSES = np.concatenate([ONE_CLASS[:-1], [[4.0, 3.0, 1.0]]])


def test_remember_counts_the_steps_of_one_class_and_starts_again_after_another():
    state, counts = begin(hop(), TEACHERS), []
    remember = jax.jit(partial(engine.remember, hop()))
    other = np.roll(ONE_CLASS, 1, axis=1)  # another class, but again one alone
    for logits in (TWO_CLASSES, ONE_CLASS, other, ONE_CLASS, TWO_CLASSES, ONE_CLASS):
        state = remember(state, TEACHERS, made(logits), KEY)
        counts.append(int(state.one_class_steps))
    assert counts == [0, 1, 2, 3, 0, 1]
    assert state.one_class_steps.dtype == jnp.int32
    report = engine.metrics(state, made(ONE_CLASS), jnp.asarray([1.0, 3.0]))
    values = {name: float(value) for name, value in report.items()}
    assert values == {"balance": 1.0, "distillation": 2.0, "one_class_steps": 1.0}
    assert {value.dtype for value in report.values()} == {np.dtype(np.float32)}


def test_one_class_is_no_collapse_where_the_teachers_know_no_other():
    weights = jnp.asarray(TEACHERS.weights) * jnp.asarray([[0.0, 1.0, 0.0]])
    received = replace(TEACHERS, weights=weights)
    state = begin(hop(), received)
    state = engine.remember(hop(), state, received, made(ONE_CLASS), KEY)
    assert int(state.one_class_steps) == 0


def test_remember_writes_images_labels_and_answers_round_the_ring():
    state = begin(hop(), TEACHERS)
    remember = jax.jit(partial(engine.remember, hop()))
    for step in range(3):  # 18 images into 16 places
        images = jnp.full((BATCH, *SHAPE), step / 2)
        state = remember(state, TEACHERS, made(TWO_CLASSES + step, images), KEY)
    assert int(state.bank.written) == 18
    shown = np.asarray(state.bank.images)[:, 0, 0, 0]
    assert shown.tolist() == [255] * 2 + [0] * 4 + [128] * 6 + [255] * 4
    np.testing.assert_array_equal(state.bank.labels[:2], LABELS[4:])
    np.testing.assert_array_equal(state.bank.logits[:2], TWO_CLASSES[4:] + 2)


def test_a_bank_that_is_a_reservoir_draws_whom_it_keeps_from_the_key():
    of, images = hop(bank_policy="reservoir"), jnp.ones((BATCH, *SHAPE))
    remember, kept = jax.jit(partial(engine.remember, of)), []
    for key in (jax.random.key(1), jax.random.key(2)):
        state = begin(of, TEACHERS)
        for step in range(9):  # 54 images into 16 places
            one = jax.random.fold_in(key, step)
            batch = made(TWO_CLASSES + step, images * step / 8)
            state = remember(state, TEACHERS, batch, one)
        assert int(state.bank.written) == 54
        kept.append(np.unique(np.asarray(state.bank.images)[:, 0, 0, 0]))
    assert not np.array_equal(*kept)
    assert min(map(len, kept)) > 3  # a ring would hold the three newest batches


def test_a_moving_average_follows_its_generator_and_is_what_is_kept():
    of = hop(average=0.75)
    state = begin(of, TEACHERS)
    first = state.generator
    assert equal(state.average, first)
    batch = made(TWO_CLASSES)._replace(stats=first.stats)
    for step in (1.0, 3.0):
        params = jax.tree.map(lambda leaf, step=step: leaf + step, first.params)
        state = engine.renewed(of, state, params, batch, ())
    np.testing.assert_allclose(
        jax.tree.leaves(state.average.params)[0],
        # 0.75 (0 + 0.25 * 1) + 0.25 * 3 from the start.
        jax.tree.leaves(first.params)[0] + 0.9375,
        rtol=1e-5,
    )
    assert equal(state.kept, state.average)
    assert not equal(state.kept, state.generator)
    plain = begin(hop(), TEACHERS)
    plain = engine.renewed(hop(), plain, plain.generator.params, batch, ())
    assert plain.average is None
    assert equal(plain.kept, plain.generator)
