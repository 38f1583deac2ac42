"""Accuracy from class hits, against counting by hand."""

import jax.numpy as jnp
import numpy as np

from ecogen_jax.metrics import (
    accuracy,
    class_hits,
    own_accuracy,
    seen_accuracy,
    seen_images,
    unseen_accuracy,
)

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


def test_own_accuracy_leaves_out_classes_that_the_split_lacks():
    totals, hits = np.array([4, 0, 2]), np.array([[1, 0, 2], [3, 0, 0], [4, 0, 2]])
    counts = np.array([[1, 7, 1], [0, 5, 0], [0, 0, 0]])
    found = own_accuracy(hits, totals, counts)
    np.testing.assert_allclose(found, [0.5 * 1 / 4 + 0.5 * 2 / 2, np.nan, np.nan])


def test_seen_accuracy_pools_all_images_of_the_classes_that_a_party_has_seen():
    hits = np.array([[2, 5, 1], [1, 0, 0], [4, 5, 1]])
    counts = np.array([[9, 0, 1], [0, 1, 1], [0, 0, 0]])
    seen = seen_accuracy(hits, TOTALS, counts)
    np.testing.assert_allclose(seen, [(2 + 1) / (4 + 1), 0.0, np.nan])
    np.testing.assert_array_equal(seen_images(TOTALS, counts), [5, 6, 0])


def test_seen_accuracy_of_equal_slices_is_estimated_without_bias():
    # As published: each of the parties gets the same share of a class's test images,
    # if it has seen the class, and all answers are counted together.
    counts = np.array([[3, 1, 0], [0, 2, 2]])
    share = np.array([[0.5, 0.8, 0.0], [0.0, 0.4, 1.0]])  # right, by party and class
    slices = np.where(counts > 0, TOTALS / 2, 0)
    published = (slices * share).sum() / slices.sum()
    hits = share * TOTALS
    weights = seen_images(TOTALS, counts)
    pooled = np.average(seen_accuracy(hits, TOTALS, counts), weights=weights)
    np.testing.assert_allclose(pooled, published)


def test_unseen_accuracy_weights_classes_alike_whatever_their_number():
    totals = np.array([100, 1, 0, 10])
    hits = np.array([[100, 0, 0, 5], [0, 1, 0, 0], [7, 1, 0, 3]])
    counts = np.array([[0, 0, 0, 9], [9, 0, 9, 0], [1, 1, 0, 1]])
    # The split holds nothing of class 2; the last device saw all the others.
    found = unseen_accuracy(hits, totals, counts)
    np.testing.assert_allclose(found, [(1 + 0) / 2, (1 + 0) / 2, np.nan])
