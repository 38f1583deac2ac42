"""Attacks on what is known: closed forms, overfit nets, nets that saw nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from ecogen_jax.nets.functional import Net, Output, Variables
from ecogen_jax.relay.attacks import intervals, inversion, membership
from ecogen_jax.relay.attacks.inversion import Search, Training

SHAPE, CLASSES = (8, 8, 1), 4
PIXELS = 64


def linear() -> Net:
    """Logits linear in the pixels: its gradient is known by hand."""

    def init(key):
        kernel = 0.1 * jax.random.normal(key, (PIXELS, CLASSES))
        return Variables({"kernel": kernel, "bias": jnp.zeros(CLASSES)}, {})

    def apply(variables, *inputs, train):
        del train
        (images,) = inputs
        x = images.reshape(images.shape[0], PIXELS)
        params = variables.params
        return Output(x @ params["kernel"] + params["bias"][None], {}, {}, (x,))

    return Net(init, apply)


NET = linear()
START = NET.init(jax.random.key(0))


def drawn(seed, number):
    """Noise with labels that have nothing to do with it."""
    rng = np.random.default_rng(seed)
    labels = np.arange(number, dtype=np.int32) % CLASSES
    return rng.random((number, *SHAPE), dtype=np.float32), labels


def logits(variables, images):
    return np.asarray(NET.apply(variables, jnp.asarray(images), train=False).value)


# Figures and intervals.


def test_the_area_is_that_of_all_pairs_with_half_of_a_tie():
    found = intervals.found(np.array([3.0, 2, 2]), np.array([1.0, 2, 0, 2]))
    assert found.auc == pytest.approx((4 + 3 + 3) / 12)
    rng = np.random.default_rng(0)
    members, others = rng.integers(0, 9, 50) + 2.0, rng.integers(0, 9, 70) + 0.0
    truth = np.repeat([1, 0], [50, 70])
    expected = roc_auc_score(truth, np.concatenate([members, others]))
    assert intervals.found(members, others).auc == pytest.approx(expected)


def test_true_positives_are_counted_where_one_percent_of_the_others_are_false():
    others = np.arange(200.0)  # 198 and 199 may be taken for members
    members = np.array([0.0, 197, 197.5, 500])
    assert intervals.found(members, others).tpr == 0.5
    # Too few others for a percent: no false positive is allowed.
    assert intervals.found(np.array([49.0, 50]), np.arange(50.0)).tpr == 0.5


@pytest.mark.parametrize("devices", [1, 10])
def test_of_what_tells_nothing_the_interval_holds_chance_as_often_as_it_says(devices):
    held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        scores = [(rng.normal(size=80), rng.normal(size=80)) for _ in range(devices)]
        area, _ = intervals.of_devices(scores, rng, resamples=100)
        held += area.low <= 0.5 <= area.high
    assert 51 <= held < 60  # 57 are expected, give or take 1.7


def test_the_interval_of_devices_is_students_and_inside_what_a_share_can_be():
    rng = np.random.default_rng(0)
    scores = [(rng.normal(1, 1, 100), rng.normal(0, 1, 100)) for _ in range(5)]
    area, _ = intervals.of_devices(scores, rng)
    each = np.array([intervals.found(*pair).auc for pair in scores])
    reach = 2.776 * each.std(ddof=1) / np.sqrt(5)  # of 4 degrees of freedom
    wanted = (each.mean(), each.mean() - reach, each.mean() + reach)
    assert area == pytest.approx(wanted, rel=1e-3)
    easy = (rng.normal(9, 1, 100), rng.normal(0, 1, 100))
    area, _ = intervals.of_devices([easy, scores[0]], rng)
    assert area.value == pytest.approx((1 + each[0]) / 2)
    assert (area.low, area.high) == (0.0, 1.0)  # two say nothing of a third


@pytest.mark.parametrize("number", [2, 4, 400])
def test_the_interval_of_a_mean_is_students(number):
    values = np.random.default_rng(1).normal(3, 2, number)
    found = intervals.of_mean(values)
    wanted = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert found == pytest.approx((values.mean(), wanted.low, wanted.high))


def test_the_interval_of_four_values_holds_the_mean_as_often_as_it_says():
    drawn = np.random.default_rng(0).normal(3, 2, (2000, 4))
    found = [intervals.of_mean(values) for values in drawn]
    held = np.mean([one.low <= 3 <= one.high for one in found])
    assert held == pytest.approx(0.95, abs=0.02)  # its deviation is 0.005


def test_a_single_value_has_a_mean_and_no_interval():
    found = intervals.of_mean(np.array([7.0]))
    assert found == pytest.approx((7.0, np.nan, np.nan), nan_ok=True)


# Membership.


@pytest.fixture(scope="module")
def overfit():
    """A net that has learnt random labels of 40 images by heart, and both sets."""
    members, others = drawn(1, 40), drawn(2, 40)
    training = Training(steps=400, learning_rate=1.0, momentum=0.9)
    moved = jax.jit(inversion.update, static_argnums=(0, 4))(
        NET, START, *map(jnp.asarray, members), training
    )
    after = jax.tree.map(jnp.add, START.params, moved)
    return Variables(after, {}), members, others


def test_an_overfit_net_tells_its_images_from_others(overfit):
    net, members, others = overfit
    plain = [
        membership.low_loss(logits(net, images), labels)
        for images, labels in (members, others)
    ]
    calibrated = [
        membership.lower_loss(logits(net, images), logits(START, images), labels)
        for images, labels in (members, others)
    ]
    for scores in (plain, calibrated):
        rng = np.random.default_rng(0)
        area, _ = intervals.of_devices([tuple(scores)], rng, resamples=200)
        assert area.value > 0.7
        assert area.low > 0.5


def test_a_net_that_saw_neither_set_is_at_chance(overfit):
    net, *_ = overfit
    for variables in (START, net):
        sets = (drawn(3, 200), drawn(4, 200))
        scores = tuple(membership.low_loss(logits(variables, x), y) for x, y in sets)
        rng = np.random.default_rng(0)
        area, positives = intervals.of_devices([scores], rng, resamples=300)
        assert area.low < 0.5 < area.high
        assert positives.low <= intervals.FALSE_POSITIVES <= positives.high


def test_the_scores_are_losses_and_distances():
    scores = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    labels = np.array([0, 1], np.int32)
    low = membership.low_loss(scores + 7.0, labels)
    np.testing.assert_allclose(low, np.log([0.5, 0.1]))
    flat = np.zeros((2, 3))
    lower = membership.lower_loss(scores, flat, labels)
    np.testing.assert_allclose(lower, np.log([1.5, 0.3]))
    means = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0], [9.0, 9.0, 9.0]])
    np.testing.assert_allclose(membership.near_mean(flat, labels, means), [-5.0, -2.0])


def test_a_generator_tells_of_what_it_copies():
    made = np.array([[0.0, 0.0], [0.1, 0.0], [3.0, 4.0], [9.0, 9.0]])
    features = np.array([[0.0, 0.0], [6.0, 8.0], [5.0, 0.0]])
    near = membership.near_made(features, made)
    np.testing.assert_allclose(near, [0.0, -np.sqrt(10.0), -np.sqrt(20.0)])
    # The radius is the root of 10: of the second image only the last output is in it.
    many = membership.many_made(features, made)
    np.testing.assert_allclose(many, [0.5, 0.25, 0.0])


# Inversion.


def by_hand(params, images, labels):
    """Gradient of the mean cross-entropy, `x (softmax - one_hot)`."""
    x = images.reshape(len(images), -1)
    z = np.exp(x @ params["kernel"] + params["bias"])
    error = (z / z.sum(axis=1, keepdims=True) - np.eye(CLASSES)[labels]) / len(x)
    return {"kernel": x.T @ error, "bias": error.sum(axis=0)}


def test_an_update_is_the_sum_of_its_steps_with_momentum():
    images, labels = drawn(5, 3)
    found = inversion.update(
        NET, START, jnp.asarray(images), jnp.asarray(labels), Training(2, 0.1, 0.5)
    )
    params = jax.tree.map(np.asarray, START.params)
    first = by_hand(params, images, labels)
    params = {name: params[name] - 0.1 * first[name] for name in params}
    second = by_hand(params, images, labels)
    for name in params:
        wanted = -0.1 * (1.5 * first[name] + second[name])
        np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("steps", [1, 7])
def test_one_image_of_a_linear_net_is_read_off_its_update(steps):
    images, labels = drawn(6, 1)
    heard = inversion.update(
        NET, START, jnp.asarray(images), jnp.asarray(labels), Training(steps, 0.05, 0.0)
    )
    found = inversion.linear_input(**heard)
    np.testing.assert_allclose(found, images.ravel(), atol=1e-4)


def test_the_search_finds_the_image_of_its_update_and_not_another():
    images, labels = map(jnp.asarray, drawn(7, 2))
    training = Training(1, 0.1, 0.0)

    @jax.jit
    def find(image, label):
        heard = inversion.update(NET, START, image, label, training)
        return inversion.invert(
            NET,
            START,
            heard,
            jnp.zeros_like(image),
            label,
            jax.random.key(1),
            training=training,
            search=Search(steps=300, smooth=0.0),
        )

    own = [
        float(inversion.errors(np.asarray(find(one, label)), np.asarray(one))[0])
        for one, label in ((images[:1], labels[:1]), (images[1:], labels[1:]))
    ]
    assert max(own) < 1e-3
    other = inversion.errors(
        np.asarray(find(images[:1], labels[:1])), np.asarray(images[1:])
    )
    assert other[0] > 0.1  # two independent uniform pixels: 1 / 6


def test_variation_and_cosine_are_those_of_their_definitions():
    ramp = jnp.broadcast_to(jnp.arange(4.0).reshape(1, 1, 4, 1), (2, 4, 4, 1))
    assert inversion.variation(ramp) == 1.0
    first, second = {"a": jnp.ones(3), "b": jnp.zeros(1)}, {"a": 2 * jnp.ones(3)}
    second |= {"b": jnp.full(1, 2.0)}
    np.testing.assert_allclose(inversion.cosine(first, second), 3**0.5 / 2, rtol=1e-6)
    tiny = jax.tree.map(lambda leaf: 1e-8 * leaf, first)
    np.testing.assert_allclose(inversion.cosine(tiny, second), 3**0.5 / 2, rtol=1e-3)
    nothing = jax.tree.map(jnp.zeros_like, first)
    gradient = jax.grad(inversion.cosine)(nothing, second)
    assert np.isfinite(gradient["a"]).all()


def test_errors_are_those_of_the_best_assignment_in_the_order_of_the_truth():
    true, _ = drawn(8, 5)
    order = np.array([3, 0, 4, 1, 2])
    found = true[order].copy()
    found[0] = found[0] + 0.1  # of the true image 3
    wanted = [0, 0, 0, 0.01, 0]
    np.testing.assert_allclose(inversion.errors(found, true), wanted, atol=1e-7)
    ratio = inversion.psnr_db(np.array([0.01, 0.0]))
    np.testing.assert_allclose(ratio, [20.0, 100.0])
