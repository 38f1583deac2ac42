"""Training of one party: the loss by hand, and what may be drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.nets.functional import Net, Output, Variables
from ecogen_jax.relay import learn
from ecogen_jax.relay.augmentation import Augmentation
from tests import toy_nets

NET = toy_nets.classifier(6)
WEIGHT, TEMPERATURE = 0.7, 2.0


def make(*, batch_size=8, replay_weight=WEIGHT, steps=100):
    return learn.learner(
        NET,
        batch_size=batch_size,
        learning_rate=0.05,
        total_steps=steps,
        temperature=TEMPERATURE,
        replay_weight=replay_weight,
    )


def images(*bytes_):
    """One image for each row of four bytes."""
    return np.array(bytes_, np.uint8).reshape(-1, *toy_nets.SHAPE)


def data(pictures, labels, size=None):
    size = len(labels) if size is None else size
    return learn.Data(pictures, np.array(labels, np.int32), np.int32(size))


OWN = data(images([0, 255, 128, 64]), [2])
REPLAY = learn.Replay(images([9, 9, 200, 0]), np.array([[0.5, -1, 2]], np.float32))


def train(learner, material, *, steps, seed=0):
    """All steps, and each one's terms."""

    @jax.jit
    def run(state, material, keys):
        return jax.lax.scan(lambda s, key: learner.step(s, material, key), state, keys)

    start = learner.init(NET.init(jax.random.key(1)))
    return run(start, material, jax.random.split(jax.random.key(seed), steps))


def step_without_optimiser(monkeypatch, learner, material):
    """The gradient that a step would follow, and the step's terms."""
    monkeypatch.setattr(learn, "descend", lambda tx, grads, state, _: (grads, state))
    before = learner.init(NET.init(jax.random.key(1)))
    after, terms = jax.jit(learner.step)(before, material, jax.random.key(0))
    return before.variables, after.variables, terms


def by_hand(params, stats, weight):
    """The loss on a batch of eight copies of the own and of the replayed image."""
    pictures = np.concatenate([OWN.images.repeat(8, 0), REPLAY.images.repeat(8, 0)])
    pictures = pictures if weight else pictures[:8]
    scaled = jnp.asarray(pictures / 255, jnp.float32)
    output = NET.apply(Variables(params, stats), scaled, train=True)
    own = -jax.nn.log_softmax(output.value[0])[2]
    if not weight:
        return own, output
    target = jax.nn.softmax(REPLAY.logits[0] / TEMPERATURE)
    guess = jax.nn.log_softmax(output.value[8] / TEMPERATURE)
    kept = TEMPERATURE**2 * jnp.sum(target * (jnp.log(target) - guess))
    return own + weight * kept, output


@pytest.mark.parametrize("replay", [None, REPLAY])
def test_a_step_follows_the_gradient_of_the_loss_by_hand(monkeypatch, replay):
    weight = 0 if replay is None else WEIGHT
    before, after, terms = step_without_optimiser(
        monkeypatch, make(), learn.Material(OWN, replay)
    )
    (loss, output), grads = jax.value_and_grad(by_hand, has_aux=True)(
        before.params, before.stats, weight
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        (after.params, after.stats),
        (grads, output.stats),
    )
    total = terms["cross_entropy"] + weight * terms.get("distillation", 0.0)
    np.testing.assert_allclose(total, loss, rtol=1e-5)
    assert ("distillation" in terms) == (replay is not None)


@pytest.mark.parametrize(("weight", "matters"), [(0.0, False), (1.0, True)])
def test_replayed_logits_matter_by_the_replay_weight(weight, matters):
    learner = make(replay_weight=weight)
    other = REPLAY.replace(logits=-REPLAY.logits)
    one, _ = train(learner, learn.Material(OWN, REPLAY), steps=2)
    two, _ = train(learner, learn.Material(OWN, other), steps=2)
    params = [state.variables.params["second"] for state in (one, two)]
    assert np.array_equal(*params) == (not matters)


def test_the_loss_falls_on_separable_images():
    labels = np.arange(30) % 3
    pictures = np.random.default_rng(0).integers(0, 60, (30, 4), dtype=np.uint8)
    pictures[np.arange(30), labels] = 255
    material = learn.Material(data(images(*pictures), labels), None)
    _, terms = train(make(), material, steps=100)
    losses = terms["cross_entropy"]
    assert np.mean(losses[-10:]) < 0.1 < 0.5 < np.mean(losses[:3])


def test_padding_is_never_drawn():
    pictures = images([0, 255, 0, 255], [255, 0, 255, 0], *[[77] * 4] * 6)
    padded = learn.Material(data(pictures, [0, 1, *[99] * 6], size=2), None)
    bare = learn.Material(data(pictures[:2], [0, 1]), None)
    state, terms = train(make(), padded, steps=50)
    # A label of 99 among three classes would give a loss that is not a number.
    assert np.isfinite(terms["cross_entropy"]).all()
    expected, _ = train(make(), bare, steps=50)
    jax.tree.map(np.testing.assert_array_equal, state, expected)


def test_every_image_is_drawn():
    pictures = images(*np.diag([255] * 4))
    material = learn.Material(data(pictures, [0, 1, 2, 2]), None)
    state, _ = train(make(), material, steps=100)
    scaled = jnp.asarray(pictures / 255, jnp.float32)
    logits = NET.apply(state.variables, scaled, train=True).value
    assert np.argmax(logits, axis=1).tolist() == [0, 1, 2, 2]


def test_the_key_alone_decides():
    material = learn.Material(data(images([1] * 4, [200] * 4), [0, 1]), REPLAY)
    results = [train(make(), material, steps=3, seed=seed)[0] for seed in (0, 0, 1)]
    first, again, other = [state.variables.params["first"] for state in results]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_images_with_logits_alone_are_distilled(monkeypatch):
    before, grads, terms = step_without_optimiser(
        monkeypatch, make(replay_weight=1.0), learn.Material(None, REPLAY)
    )

    def expected(params):
        pictures = REPLAY.images.repeat(8, 0)
        scaled = jnp.asarray(pictures / 255, jnp.float32)
        output = NET.apply(Variables(params, before.stats), scaled, train=True)
        target = jax.nn.softmax(REPLAY.logits[0] / TEMPERATURE)
        guess = jax.nn.log_softmax(output.value[0] / TEMPERATURE)
        return TEMPERATURE**2 * jnp.sum(target * (jnp.log(target) - guess))

    loss, by_hand_grads = jax.value_and_grad(expected)(before.params)
    assert set(terms) == {"distillation"}
    np.testing.assert_allclose(terms["distillation"], loss, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        grads.params,
        by_hand_grads,
    )


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_a_teacher_s_logits_are_those_of_each_image_in_every_chunk(monkeypatch, count):
    monkeypatch.setattr(learn, "CHUNK", 3)
    pictures = images(*np.random.default_rng(0).integers(0, 256, (count, 4)))
    variables = NET.init(jax.random.key(3))
    replay = jax.jit(lambda images: learn.asked(NET, variables, images))(pictures)
    scaled = jnp.asarray(pictures / 255, jnp.float32)
    expected = NET.apply(variables, scaled, train=False).value
    np.testing.assert_array_equal(replay.images, pictures)
    np.testing.assert_allclose(replay.logits, expected, rtol=1e-5, atol=1e-6)


def test_own_images_are_augmented_and_replayed_ones_are_not():
    def apply(variables, pictures, train):
        answer = variables.params * pictures.reshape(len(pictures), -1)[:, :3]
        return Output(answer, {"seen": pictures}, {}, ())

    one = learn.learner(
        Net(lambda key: Variables(jnp.ones(()), {}), apply),
        batch_size=64,
        learning_rate=0.05,
        total_steps=1,
        temperature=TEMPERATURE,
        replay_weight=WEIGHT,
        augmentation=Augmentation(flip=True),
    )
    state, _ = jax.jit(one.step)(
        one.init(Variables(jnp.ones(()), {})),
        learn.Material(OWN, REPLAY),
        jax.random.key(0),
    )
    seen = np.rint(np.asarray(state.variables.stats["seen"]) * 255).reshape(128, 4)
    own = {tuple(row) for row in seen[:64]}
    assert own == {(0, 255, 128, 64), (255, 0, 64, 128)}
    np.testing.assert_array_equal(seen[64:], REPLAY.images.reshape(1, 4).repeat(64, 0))
