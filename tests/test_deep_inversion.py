"""DeepInversion: pixels that are optimised to their end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import losses
from ecogen_jax.relay.distillers import DISTILLERS
from ecogen_jax.relay.distillers.base import Weights
from tests import toy_hop
from tests.toy_hop import TEACHER, begin, build, logits, one_step, only

NAME, BATCH = "deep_inversion", toy_hop.BATCH
WEIGHTS = Weights(cross_entropy=1.0, total_variation=1e-3, adversarial=0.2)
INVERSION = {"inner_steps": 60, "learning_rate": 0.1}


def stored(state):
    """The images of the bank's first batch, in [0, 1]."""
    return np.asarray(state.bank.images[:BATCH]).astype(np.float32) / 255


def test_the_teacher_finds_the_asked_classes_in_what_is_kept():
    received, distiller = toy_hop.teachers(), build(NAME, WEIGHTS, **INVERSION)
    after, metrics, _ = one_step(distiller, begin(distiller, received), received)
    labels, answers = after.bank.labels[:BATCH], after.bank.logits[:BATCH]
    assert len(set(np.asarray(labels).tolist())) > 1
    # Of four classes; each image is judged at a shift of its own.
    assert np.mean(np.argmax(answers, -1) == labels) > 0.8
    expected = losses.cross_entropy(answers, labels)
    np.testing.assert_allclose(metrics["cross_entropy"], expected, 1e-4)
    # The answers are those to the images that are kept, shift included.
    again = logits(TEACHER, only(received), stored(after))
    np.testing.assert_allclose(answers, again, atol=0.1)


def test_more_steps_lower_the_loss_of_the_kept_batch():
    received = toy_hop.teachers()
    values = []
    for inner_steps in (1, 60):
        sizes = INVERSION | {"inner_steps": inner_steps}
        distiller = build(NAME, Weights(total_variation=1.0), **sizes)
        after, metrics, _ = one_step(distiller, begin(distiller, received), received)
        expected = losses.total_variation(jnp.asarray(stored(after)))
        np.testing.assert_allclose(metrics["total_variation"], expected, rtol=0.02)
        values.append(metrics["total_variation"])
    assert values[1] < 0.5 * values[0]


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_only_the_adaptive_term_looks_at_the_student(weight):
    received = toy_hop.teachers()
    weights = Weights(cross_entropy=1.0, adversarial=weight)
    distiller = build(NAME, weights, **INVERSION)
    state = begin(distiller, received)
    stranger = state.replace(student=begin(distiller, received, seed=9).student)
    one, metrics, _ = one_step(distiller, state, received)
    other, _, _ = one_step(distiller, stranger, received)
    assert np.array_equal(one.bank.images, other.bank.images) == (weight == 0.0)
    assert ("adversarial" in metrics) == (weight > 0.0)
    # The Jensen-Shannon divergence has a bound, in nats.
    assert -np.log(2) <= metrics.get("adversarial", 0.0) <= 0.0


def test_the_generator_stays_as_it_came_and_is_not_offered():
    received, distiller = toy_hop.teachers(), build(NAME, WEIGHTS, **INVERSION)
    state = begin(distiller, received)
    after, _, _ = one_step(distiller, state, received)
    same = jax.tree.map(np.array_equal, state.generator, after.generator)
    assert all(jax.tree.leaves(same))
    assert not DISTILLERS[NAME].keeps_generator


def test_a_short_hop_teaches_the_student():
    received = toy_hop.teachers(2)
    sizes = {"steps": 20, "inner_steps": 20, "learning_rate": 0.1}
    distiller = build(NAME, WEIGHTS, **sizes)
    state = begin(distiller, received)
    step_keys = jax.random.split(jax.random.key(1), 12)
    after, metrics = toy_hop.run(distiller.step, state, received, step_keys)
    values = np.asarray(metrics["distillation"])
    assert np.isfinite(values).all()
    assert values[-3:].mean() < 0.5 * values[0]
    assert after.bank.written == 12 * BATCH
