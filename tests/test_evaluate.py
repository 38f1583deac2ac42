"""Scores of all parties, from nets whose answers are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.run import evaluate
from ecogen_jax.run.evaluate import EndScores, Evaluator, Scores, unseen_accuracy
from tests.toy_experiment import always, experiment

# Two devices, which always answer with class 0 and class 1.
COUNTS = [[3, 1, 0], [0, 0, 2]]


@pytest.fixture
def made():
    return experiment((5, 4, 1), (1, 1, 2), COUNTS)


@pytest.fixture
def evaluator(made):
    return Evaluator(made)


def test_everybody_on_both_splits(evaluator, made):
    test = evaluator.everybody(made.parties, "test")
    np.testing.assert_allclose(test.cloud, [0.5])
    np.testing.assert_allclose(test.edge, [0.4, 0.1])
    np.testing.assert_allclose(test.end.accuracy, [0.5, 0.4])
    # Three quarters of the first device's images are of the class it always answers.
    np.testing.assert_allclose(test.end.own, [0.75, 0.0])
    # The second device has neither class 0 nor class 1, and answers the latter.
    np.testing.assert_allclose(test.end.unseen, [0.0, 0.5])
    validation = evaluator.everybody(made.parties, "validation")
    np.testing.assert_allclose(validation.edge, [0.25, 0.5])
    np.testing.assert_allclose(validation.end.own, [0.75, 0.0])


def test_means_and_rows_of_a_phase(evaluator, made):
    scores = evaluator.everybody(made.parties, "test")
    expected = {"cloud": 0.5, "edge": 0.25, "end": 0.45}
    expected |= {"end_own": 0.375, "end_unseen": 0.25}
    assert scores.means() == pytest.approx(expected)
    rows = scores.rows(2, "local")
    assert [(row["tier"], row["party"]) for row in rows] == [
        ("cloud", 0),
        *(("edge", 0), ("edge", 1)),
        *(("end", 0), ("end", 1)),
    ]
    assert {(row["cycle"], row["phase"]) for row in rows} == {(2, "local")}
    assert [row["own_accuracy"] for row in rows] == [None, None, None, 0.75, 0.0]
    assert [row["unseen_accuracy"] for row in rows] == [None, None, None, 0.0, 0.5]
    assert rows[2]["accuracy"] == pytest.approx(0.1)


def test_unseen_accuracy_weights_classes_alike_whatever_their_number():
    totals = np.array([100, 1, 0, 10])
    hits = np.array([[100, 0, 0, 5], [0, 1, 0, 0], [7, 1, 0, 3]])
    counts = np.array([[0, 0, 0, 9], [9, 0, 9, 0], [1, 1, 0, 1]])
    # The split holds nothing of class 2; the last device saw all the others.
    found = unseen_accuracy(hits, totals, counts)
    np.testing.assert_allclose(found, [(1 + 0) / 2, (1 + 0) / 2, np.nan])


def test_a_device_that_has_all_classes_counts_for_no_mean_of_unseen_ones():
    some = experiment((1, 1, 1), (1, 1, 1), [[1, 1, 1], [0, 1, 1]])
    scores = Evaluator(some).everybody(some.parties, "test")
    assert scores.rows(1, "up")[-2]["unseen_accuracy"] is None
    assert scores.means()["end_unseen"] == scores.rows(1, "up")[-1]["unseen_accuracy"]
    both = experiment((1, 1, 1), (1, 1, 1), [[1, 1, 1], [2, 1, 1]])
    means = Evaluator(both).everybody(both.parties, "test").means()
    assert means["end_unseen"] is None
    assert means["end_own"] is not None


def test_devices_without_private_images_have_no_score_of_their_own():
    none = experiment((5, 4, 1), (1, 1, 2), np.zeros((2, 3), np.int64))
    scores = Evaluator(none).everybody(none.parties, "test")
    means = scores.means()
    assert means["end"] == pytest.approx(0.45)
    assert means["end_own"] is None
    assert means["end_unseen"] is None
    assert {row["own_accuracy"] for row in scores.rows(0, "start")} == {None}


def test_devices_of_several_kinds_stand_in_their_own_order():
    # Below both edges devices 0 and 2 are of the first kind; device i says class i % 3.
    counts = np.zeros((6, 3), np.int64)
    counts[np.arange(6), np.arange(6) % 3] = 7
    made = experiment((5, 4, 1), (1, 1, 2), counts, kinds=2)
    evaluator = Evaluator(made)
    scores = evaluator.everybody(made.parties, "test")
    np.testing.assert_allclose(scores.end.accuracy, [0.5, 0.4, 0.1] * 2)
    np.testing.assert_allclose(scores.end.own, np.ones(6))
    for kind, devices in enumerate(([0, 2, 3, 5], [1, 4])):
        some = evaluator.ends(made.parties.end[kind], "test", kind)
        np.testing.assert_array_equal(some.device, devices)
        np.testing.assert_allclose(some.own, 1.0)


def test_the_same_nets_are_not_asked_twice_and_new_ones_are(evaluator, made):
    asked = []
    hits = evaluator._hits["edge"][0]
    evaluator._hits["edge"][0] = lambda *some: asked.append(some) or hits(*some)
    for _ in range(2):
        first = evaluator.tier(made.parties, "edge", "test")
    assert len(asked) == 1
    other = evaluator.tier(made.parties.replace(edge=always(1, 1)), "edge", "test")
    assert len(asked) == 2
    assert not np.array_equal(first, other)


def test_an_ensemble_answers_with_the_mean_of_all_logits():
    # All logits are 0 or 1, so the class that most devices answer wins.
    made = experiment((5, 4, 1), (1, 1, 2), np.ones((6, 3), np.int64), kinds=2)
    parties = made.parties.replace(end=(always(0, 0, 2, 1), always(1, 1)))
    evaluator = Evaluator(made)
    assert evaluator.ensemble(parties, "end", "test") == pytest.approx(0.4)
    assert evaluator.ensemble(parties, "end", "validation") == pytest.approx(0.25)


def test_progress_is_the_mean_over_parties_on_validation_images(evaluator, made):
    edge = made.parties.edge
    assert evaluator.mean("edge", edge, "progress") == pytest.approx(0.375)
    assert evaluator.mean("end", always(2, 2), "progress") == pytest.approx(0.5)
    assert evaluator.mean("edge", edge, "test") == pytest.approx(0.25)


def test_progress_takes_a_part_of_a_large_split(monkeypatch):
    monkeypatch.setattr(evaluate, "PROGRESS_IMAGES", 10)
    evaluator = Evaluator(experiment((1, 1, 1), (40, 30, 30), COUNTS))
    shares = [evaluator.mean("cloud", always(label), "progress") for label in range(3)]
    assert sum(shares) == pytest.approx(1.0)
    assert all(share * 10 == pytest.approx(round(share * 10)) for share in shares)


def test_the_rows_of_devices_alone_are_those_of_a_baseline():
    nothing = np.full(2, np.nan)
    ends = EndScores(np.array([4, 7]), np.array([0.5, 0.25]), np.ones(2), nothing)
    rows = ends.rows(0, "local_only")
    assert [row["party"] for row in rows] == [4, 7]
    everybody = Scores(np.array([1.0]), np.array([1.0]), ends)
    assert everybody.rows(0, "local_only")[-2:] == rows


def test_to_host_leaves_numpy_arrays():
    tree = evaluate.to_host({"a": jnp.ones(2), "b": (jnp.zeros(()), None)})
    assert type(tree["a"]) is np.ndarray
    assert type(tree["b"][0]) is np.ndarray
    assert tree["b"][1] is None
