"""Weights of teachers that any distiller with target labels may learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import config as configs
from ecogen_jax.relay.distillers import DISTILLERS, learned_weights
from ecogen_jax.relay.distillers.learned_weights import Learned, heard
from ecogen_jax.relay.ensemble import Teachers
from ecogen_jax.run import build_route
from ecogen_jax.run.build import outline
from tests import toy_inversion as toy

LABELLED = [name for name, kind in DISTILLERS.items() if "cross_entropy" in kind.terms]
TOLD = [name for name in LABELLED if name != "co_boosting"]


def learned(*weights, batches=0):
    return Learned(jnp.array(weights), jnp.int32(batches))


@functools.cache
def full():
    """A bank with the labels that the first of two teachers finds, and both."""
    received = toy.teachers(2)
    state, _ = toy.run(toy.build("dense", toy.hop()), received)
    images = state.bank.images.astype(jnp.float32) / 255
    first = jax.tree.map(lambda a: a[0], received.groups[0])
    found = jnp.argmax(toy.TEACHER.apply(first, images, train=False).value, axis=-1)
    return state.bank.replace(labels=found.astype(jnp.int32)), received


@jax.jit
def moved(weights):
    bank, received = full()
    key = jax.random.key(0)
    return learned_weights.moved(toy.hop(), received, weights, bank, key)


def test_weights_are_shares_of_the_known_classes():
    group = toy.teachers(2).groups
    received = Teachers(group, jnp.array([[1.0, 0.0, 0.2], [0.0, 0.0, 0.8]]))
    got = heard(received, learned(0.2, 0.6)).weights
    np.testing.assert_allclose(got, [[0.25, 0, 0.25], [0.75, 0, 0.75]], rtol=1e-6)


def test_a_teacher_without_weight_is_not_heard():
    weights = jnp.array([[0.5, 0.5, 0.0], [0, 0, 0], [0.5, 0.5, 0.0]])
    got = heard(Teachers((), weights), learned(0.2, 0.9, 0.6)).weights
    want = [[0.25, 0.25, 0], [0, 0, 0], [0.75, 0.75, 0]]
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("batches", [0, 30])
def test_the_better_teacher_is_heard_more(batches):
    full()
    got = moved(learned(0.5, 0.5, batches=batches))
    rate = 0.01 * 0.99**batches
    np.testing.assert_allclose(got.weights, [0.5 + rate, 0.5 - rate], rtol=1e-5)
    assert got.batches == batches + 1


def test_weights_stay_in_their_bounds_and_leave_an_ensemble():
    full()
    for weights in [(1.0, 0.001), (0.001, 1.0), (1e-6, 1e-6)]:
        got = moved(learned(*weights))
        assert (got.weights > 0).all()
        assert (got.weights <= 1).all()
        shares = heard(toy.teachers(2), got).weights
        np.testing.assert_allclose(shares.sum(0), 1.0, rtol=1e-5)


@functools.cache
def told(name):
    return learned_weights.with_learned_weights(DISTILLERS[name].build, toy.hop())


@pytest.mark.parametrize("name", TOLD)
def test_a_distiller_hears_the_teachers_as_they_were_weighted_before(name):
    received = toy.teachers(2)
    state = toy.begin(told(name), received)
    np.testing.assert_allclose(state.extra.learned.weights, 0.5, rtol=1e-6)
    before = learned(0.9, 0.1)
    state = state.replace(extra=state.extra._replace(learned=before))
    key = jax.random.key(1)
    after, _ = toy.jitted(told(name))(state, received, key)
    # The same step of the distiller itself, from the same state.
    plain = toy.jitted(toy.build(name, toy.hop()))
    alone = state.replace(extra=state.extra.own)
    want, _ = plain(alone, heard(received, before), key)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, after.student.params, want.student.params)
    jax.tree.map(close, after.extra.own, want.extra)
    np.testing.assert_allclose(
        np.abs(after.extra.learned.weights - before.weights), 0.01, rtol=1e-3
    )
    alike, _ = plain(alone, received, key)
    changed = jax.tree.map(
        lambda a, b: jnp.abs(a - b).max(), want.bank.logits, alike.bank.logits
    )
    assert changed > 1e-3


@pytest.mark.parametrize("weights", ["learned", "equal"])
@pytest.mark.parametrize("spec", ["configs/hops/c1.py", "configs/federated/dense.py"])
def test_weights_are_learned_in_hops_and_in_rounds(monkeypatch, spec, weights):
    built = []

    def learning(build, hop):
        built.append(hop)
        return build(hop)

    monkeypatch.setattr(build_route, "with_learned_weights", learning)
    change = f"up_end_cloud.teacher_weights={weights}"
    outline(configs.load(f"{spec}:smoke", [change]))
    assert len(built) == (weights == "learned")
