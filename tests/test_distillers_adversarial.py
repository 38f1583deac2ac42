"""DAFL, ZSKT, DFAD and DFQ: what makes each of them itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from ecogen_jax import keys
from ecogen_jax.nets.functional import Net, Output, Variables
from ecogen_jax.relay.augmentation import Augmentation, shifted
from ecogen_jax.relay.distillers import engine, live
from ecogen_jax.relay.distillers.base import Weights
from tests import toy_hop
from tests.toy_hop import STUDENT, TEACHER, begin, build, logits, one_step, only

WEIGHTS = {
    "dafl": Weights(one_hot=1.0, activation=0.1, balance=2.0),
    "zskt": Weights(adversarial=1.0, attention=30.0),
    "dfad": Weights(adversarial=1.0),
    "dfq": Weights(adversarial=1.0, batchnorm=1.0, one_hot=1.0, balance=2.0),
}
NORMED = toy_hop.classifier(5, norm=True)


@pytest.fixture(params=WEIGHTS)
def name(request):
    return request.param


def generated(name, state, received, key):
    """What the generator of a state makes in the step of that key."""
    hop = toy_hop.hop(WEIGHTS[name])
    noise = keys.stream(key, "generator")
    return np.asarray(live.images(hop, state, received, noise))


def kl(teacher, student):
    """By image, in nats."""
    log_p, log_q = log_softmax(teacher, axis=-1), log_softmax(student, axis=-1)
    return np.sum(np.exp(log_p) * (log_p - log_q), axis=-1)


def attention(maps):
    flat = np.square(maps).mean(-1).reshape(len(maps), -1)
    return flat / np.linalg.norm(flat, axis=-1, keepdims=True)


def equal(one, other):
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), one, other)
    return all(jax.tree.leaves(same))


def test_the_bank_holds_the_batch_labelled_as_the_teachers_see_it(name):
    received = toy_hop.teachers(2 if name != "zskt" else 1)
    distiller = build(name, WEIGHTS[name])
    state = begin(distiller, received)
    after, _, key = one_step(distiller, state, received)
    images = generated(name, state, received, key)
    batch = len(images)
    stored = np.asarray(after.bank.images[:batch]) / 255
    np.testing.assert_allclose(stored, images, atol=0.003)
    labels = np.asarray(after.bank.labels[:batch])
    np.testing.assert_array_equal(labels, np.argmax(after.bank.logits[:batch], -1))
    assert len(set(labels)) > 1


def test_a_short_hop_teaches_the_student(name):
    received = toy_hop.teachers()
    distiller = build(name, WEIGHTS[name], steps=3, learning_rate=1e-3)
    state = begin(distiller, received)
    step_keys = jax.random.split(jax.random.key(1), 120)
    after, metrics = toy_hop.run(distiller.step, state, received, step_keys)
    assert all(np.isfinite(value).all() for value in metrics.values())
    before = toy_hop.disagreement(state, received)
    assert toy_hop.disagreement(after, received) < 0.8 * before


def test_dafl_has_its_three_terms_and_no_adversary():
    received, distiller = toy_hop.teachers(), build("dafl", WEIGHTS["dafl"])
    state = begin(distiller, received)
    after, metrics, key = one_step(distiller, state, received)
    images = generated("dafl", state, received, key)
    output = TEACHER.apply(only(received), jnp.asarray(images), train=False)
    mean = softmax(output.value, axis=-1).mean(0)
    np.testing.assert_allclose(metrics["balance"], np.sum(mean * np.log(mean)), 1e-4)
    certain = -log_softmax(output.value, axis=-1).max(-1).mean()
    np.testing.assert_allclose(metrics["one_hot"], certain, 1e-4)
    excited = -np.abs(output.activations[-1]).mean()
    np.testing.assert_allclose(metrics["activation"], excited, 1e-4)
    stranger = state.replace(student=begin(distiller, received, seed=9).student)
    other, _, _ = one_step(distiller, stranger, received)
    assert equal(after.generator, other.generator)


def test_dafl_teaches_on_the_very_batch_of_its_generator():
    received, distiller = toy_hop.teachers(), build("dafl", WEIGHTS["dafl"])
    state = begin(distiller, received)
    _, metrics, key = one_step(distiller, state, received)
    images = generated("dafl", state, received, key)
    apart = kl(
        logits(TEACHER, only(received), images), logits(STUDENT, state.student, images)
    )
    np.testing.assert_allclose(metrics["distillation"], apart.mean(), 1e-4)


def test_zskt_teaches_on_the_same_noise_through_the_improved_generator():
    received, distiller = toy_hop.teachers(), build("zskt", WEIGHTS["zskt"])
    state = begin(distiller, received)
    after, metrics, key = one_step(distiller, state, received)
    outputs = {}
    for when, which in (("before", state), ("after", after)):
        images = jnp.asarray(generated("zskt", which, received, key))
        outputs[when] = (
            TEACHER.apply(only(received), images, train=False),
            STUDENT.apply(state.student, images, train=False),
        )
    teacher, student = outputs["before"]
    apart = kl(teacher.value, student.value).mean()
    np.testing.assert_allclose(metrics["adversarial"], -apart, 1e-4)
    teacher, student = outputs["after"]
    maps = [attention(np.asarray(o.activations[0])) for o in outputs["after"]]
    expected = kl(teacher.value, student.value).mean()
    expected += 30.0 * np.square(maps[0] - maps[1]).mean()
    np.testing.assert_allclose(metrics["distillation"], expected, 1e-4)


def test_zskt_cuts_the_gradients_of_both():
    received = toy_hop.teachers()
    distiller = build("zskt", Weights(adversarial=1e6, attention=1e9))
    after, _, _ = one_step(distiller, begin(distiller, received), received)
    limit = 5.0 * toy_hop.CLASSES

    def norm(optimizer):
        (moments,) = (
            part.mu
            for part in jax.tree.leaves(optimizer, is_leaf=has_mu)
            if has_mu(part)
        )
        return np.sqrt(sum(np.square(m).sum() for m in jax.tree.leaves(moments)))

    def has_mu(part):
        return hasattr(part, "mu")

    # After its first step Adam's first moment is the gradient times 1 - b1.
    np.testing.assert_allclose(norm(after.student_optimizer), 0.1 * limit, 1e-3)
    np.testing.assert_allclose(norm(after.generator_optimizer), 0.5 * limit, 1e-3)


def test_zskt_has_attention_for_a_single_teacher_only():
    received = toy_hop.teachers(2)
    distiller = build("zskt", WEIGHTS["zskt"])
    with pytest.raises(
        ValueError, match=r"this hop has 2: set weights\.attention to 0"
    ):
        one_step(distiller, begin(distiller, received), received)
    plain = build("zskt", Weights(adversarial=1.0))
    _, metrics, _ = one_step(plain, begin(plain, received), received)
    assert np.isfinite(metrics["distillation"])


def test_dfad_teaches_first_and_measures_both_ways_on_the_logits():
    received, distiller = toy_hop.teachers(), build("dfad", WEIGHTS["dfad"])
    state = begin(distiller, received)
    after, metrics, key = one_step(distiller, state, received)
    images = generated("dfad", state, received, key)
    truth = logits(TEACHER, only(received), images)
    # The generator meets the student as it is after its steps.
    apart = np.abs(truth - logits(STUDENT, after.student, images)).mean()
    np.testing.assert_allclose(metrics["adversarial"], -apart, 1e-4)
    first = jax.random.split(keys.stream(key, "student"), 1)[0]
    hop = toy_hop.hop(WEIGHTS["dfad"])
    fresh = live.images(hop, state, received, keys.stream(first, "images"))
    apart = np.abs(
        logits(TEACHER, only(received), fresh) - logits(STUDENT, state.student, fresh)
    )
    np.testing.assert_allclose(metrics["distillation"], apart.mean(), 1e-4)


def test_dfq_teaches_on_fresh_images_of_the_improved_generator():
    received, distiller = toy_hop.teachers(), build("dfq", WEIGHTS["dfq"], steps=2)
    state = begin(distiller, received)
    after, metrics, key = one_step(distiller, state, received)
    # A student that does not move, so that both steps can be told by hand.
    hop = toy_hop.hop(WEIGHTS["dfq"])
    hop = hop._replace(study=hop.study._replace(learning_rate=0.0, steps=2))
    still = after.replace(student=state.student)

    def source(state, received, key):
        return live.images(hop, state, received, key)

    study = live.study_fresh(hop, source, engine.softened(hop))
    _, value = study(still, received, key)
    batches = [
        source(still, received, keys.stream(each, "images"))
        for each in jax.random.split(keys.stream(key, "student"), 2)
    ]
    assert np.abs(batches[0] - batches[1]).max() > 0.1
    apart = [
        kl(
            logits(TEACHER, only(received), batch),
            logits(STUDENT, state.student, batch),
        ).mean()
        for batch in batches
    ]
    np.testing.assert_allclose(value, np.mean(apart), 1e-4)
    # The first of the two steps of the distiller is the same, the second nearly so.
    np.testing.assert_allclose(metrics["distillation"], np.mean(apart), 0.3)


def test_dfq_matches_the_statistics_of_the_teacher():
    received = toy_hop.teachers(teacher=NORMED)
    seen = jax.random.uniform(jax.random.key(0), (500, *toy_hop.SHAPE), maxval=0.5)
    stats = NORMED.apply(only(received), seen, train=False).moments
    group = received.groups[0].replace(stats=jax.tree.map(lambda a: a[None], stats))
    received = received.replace(groups=(group,))
    weights = Weights(batchnorm=1.0)
    distiller = build("dfq", weights, teacher=NORMED, learning_rate=0.05)
    state = begin(distiller, received)
    step_keys = jax.random.split(jax.random.key(1), 60)
    _, metrics = toy_hop.run(distiller.step, state, received, step_keys)
    values = np.asarray(metrics["batchnorm"])
    assert values[-5:].mean() < 0.5 * values[:5].mean()


@pytest.mark.parametrize("name", ["zskt", "dfad", "dfq"])
def test_the_adversarial_term_reaches_the_generator_through_the_student(name):
    received = toy_hop.teachers()
    distiller = build(name, Weights(adversarial=1.0))
    state = begin(distiller, received)
    stranger = state.replace(student=begin(distiller, received, seed=9).student)
    one, _, _ = one_step(distiller, state, received)
    other, _, _ = one_step(distiller, stranger, received)
    first, second = (jax.tree.leaves(s.generator_optimizer) for s in (one, other))
    changed = [
        np.abs(a - b).max() for a, b in zip(first, second, strict=True) if a.ndim
    ]
    assert min(changed) > 1e-8


def test_shifted_images_are_put_to_the_teachers_anew():
    def apply(variables, *inputs, train):
        (images,) = inputs
        value = images.reshape(images.shape[0], -1) + 0.0 * variables.params["none"]
        return Output(value, {}, {}, ())

    mirror = Net(lambda key: Variables({"none": jnp.zeros(())}, {}), apply)
    hop = toy_hop.hop(WEIGHTS["dafl"], student=mirror, augmentation=Augmentation(2))
    received = toy_hop.teachers()
    state = engine.begin(
        hop, mirror.init(jax.random.key(0)), Variables({}, {}), received
    )
    images = jax.random.uniform(jax.random.key(1), (5, *toy_hop.SHAPE))
    seen = []

    def answer(batch):
        seen.append(batch.shape)
        return batch.reshape(batch.shape[0], -1)

    def loss(target, output):
        return jnp.mean(jnp.abs(target - output.value))

    _, value = live.study_batch(hop, state, jax.random.key(2), images, answer, loss)
    assert value == 0.0
    moved = shifted(images, jax.random.key(3), 2)
    assert loss(answer(images), mirror.apply(state.student, moved, train=True)) > 0.1


def test_half_of_the_fresh_images_come_from_the_moving_average():
    received = toy_hop.teachers()
    hop = toy_hop.hop(WEIGHTS["dfq"], average=0.9)
    distiller = build("dfq", WEIGHTS["dfq"], average=0.9)
    state = begin(distiller, received)
    for seed in range(3):
        state, *_ = one_step(distiller, state, received, seed)
    assert not equal(state.average, state.generator)
    key, half = jax.random.key(4), toy_hop.BATCH // 2
    mixed = live.images(hop, state, received, key)
    plain = state.replace(average=None)
    newest = live.images(hop, plain, received, key)
    averaged = plain.replace(generator=state.average)
    np.testing.assert_allclose(mixed[:half], newest[:half], rtol=1e-6)
    older = live.images(hop, averaged, received, key)
    np.testing.assert_allclose(mixed[half:], older[half:], rtol=1e-6)
    assert not np.allclose(mixed[half:], newest[half:])
