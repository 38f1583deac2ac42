"""Accuracy from class hits, against counting by hand."""

import jax.numpy as jnp
import numpy as np

from ecogen_jax.metrics import accuracy, class_hits, own_accuracy

TOTALS = np.array([4, 5, 1])


def test_hits_count_right_answers_by_class_and_padding_hits_nothing():
    answers = jnp.asarray([0, 1, 1, 2, 2, 0])
    logits = jnp.eye(3)[answers]
    labels = jnp.asarray([0, 1, 2, 2, 2, -1])
    np.testing.assert_array_equal(class_hits(logits, labels), [1, 1, 2])


def test_accuracy_is_the_share_of_right_answers_of_each_party():
    hits = np.array([[4, 0, 1], [0, 5, 0]])
    np.testing.assert_allclose(accuracy(hits, TOTALS), [0.5, 0.5])


def test_own_accuracy_weights_the_classes_as_the_party_has_them():
    hits = np.array([[4, 0, 1], [2, 5, 0]])
    counts = np.array([[10, 0, 30], [3, 1, 0]])
    # First party: a quarter of class 0 at 4 of 4, three quarters of class 2 at 1 of 1.
    expected = [1.0, 0.75 * 2 / 4 + 0.25 * 5 / 5]
    np.testing.assert_allclose(own_accuracy(hits, TOTALS, counts), expected)


def test_own_accuracy_is_the_global_one_for_a_party_with_the_test_distribution():
    hits = np.array([[3, 2, 1]])
    own = own_accuracy(hits, TOTALS, 7 * TOTALS[None])
    np.testing.assert_allclose(own, accuracy(hits, TOTALS))
