"""Scores of all parties, from nets whose answers are known."""

import numpy as np
import pytest

from ecogen_jax.run import evaluate
from ecogen_jax.run.evaluate import EndScores, Evaluator, Scores, distinct, end_means
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
    # Seen are classes 0 and 1, with 5 and 4 images, and class 2 with one.
    np.testing.assert_allclose(test.end.seen, [5 / 9, 0.0])
    np.testing.assert_array_equal(test.end.seen_images, [9, 1])
    # The second device has neither class 0 nor class 1, and answers the latter.
    np.testing.assert_allclose(test.end.unseen, [0.0, 0.5])
    validation = evaluator.everybody(made.parties, "validation")
    np.testing.assert_allclose(validation.edge, [0.25, 0.5])
    np.testing.assert_allclose(validation.end.own, [0.75, 0.0])


def test_means_and_rows_of_a_phase(evaluator, made):
    scores = evaluator.everybody(made.parties, "test")
    expected = {"cloud": 0.5, "edge": 0.25, "end": 0.45}
    expected |= {"end_own": 0.375, "end_own_worst": 0.0}
    expected |= {"end_seen": 5 / 10, "end_unseen": 0.25}  # 5 right of 9 and 1
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
    assert [row["seen_accuracy"] for row in rows] == [None] * 3 + [5 / 9, 0.0]
    assert [row["seen_images"] for row in rows] == [None] * 3 + [9, 1]
    assert rows[2]["accuracy"] == pytest.approx(0.1)


def rows_of(own, seen, images):
    """Rows of as many devices, with these scores."""
    made = np.arange(len(own)), np.ones(len(own)), own, seen, images, own
    return EndScores(*map(np.asarray, made)).rows(1, "local")


@pytest.mark.parametrize(
    ("devices", "expected"), [(1, 0.0), (9, 0.0), (19, 0.0), (20, 0.5), (35, 1.0)]
)
def test_the_worst_are_a_tenth_of_the_devices_and_one_at_least(devices, expected):
    own = np.arange(devices, dtype=float)[::-1]
    rows = rows_of(own, own, np.ones(devices, int))
    assert end_means(rows)["end_own_worst"] == pytest.approx(expected)


def test_a_device_counts_for_the_seen_classes_as_it_has_images_of_them():
    nothing = float("nan")
    rows = rows_of([1.0, 1.0, nothing], [0.25, 1.0, nothing], [300, 100, 0])
    means = end_means(rows)
    assert means["end_seen"] == pytest.approx((75 + 100) / 400)
    assert means["end_own_worst"] == 1.0  # who has no score of its own is not counted


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
    for name in ("end_own", "end_own_worst", "end_seen", "end_unseen"):
        assert means[name] is None
    for column in ("own_accuracy", "seen_accuracy", "unseen_accuracy"):
        assert {row[column] for row in scores.rows(0, "start")} == {None}


def domains(*, test, validation, device):
    arrays = {"test": test, "validation": validation, "device": device}
    return {f"{name}_domains": np.array(each) for name, each in arrays.items()}


@pytest.fixture
def mixed():
    """Two datasets with classes in common; one device below each edge."""
    # Test images are of class 0, 0, 0, 0, 0, 1, 1, 1, 1, 2: of the first dataset are
    # 3 of class 0 and 1 of class 1, of the second 2, 3 and 1.
    partition = domains(
        test=[0, 0, 0, 1, 1, 0, 1, 1, 1, 1], validation=[0, 1, 1, 0], device=[0, 1]
    )
    return experiment((5, 4, 1), (2, 1, 1), [[1, 1, 0], [1, 3, 0]], partition=partition)


def test_where_edges_differ_in_dataset_a_device_is_judged_on_its_own(mixed):
    scores = Evaluator(mixed).everybody(mixed.parties, "test")
    # On all images of both, as without domains.
    np.testing.assert_allclose(scores.end.accuracy, [0.5, 0.4])
    np.testing.assert_allclose(scores.cloud, [0.5])
    # The first says class 0, the second class 1.
    np.testing.assert_allclose(scores.end.own, [0.5 * 3 / 3, 0.75 * 3 / 3])
    np.testing.assert_array_equal(scores.end.seen_images, [3 + 1, 2 + 3])
    np.testing.assert_allclose(scores.end.seen, [3 / 4, 3 / 5])
    # Unseen by the first: classes 0, 1 and 2 of the second; by the second: class 2 of
    # its own, and classes 0 and 1 of the first.
    np.testing.assert_allclose(scores.end.unseen, [1 / 3, 1 / 3])
    ends = Evaluator(mixed).ends(mixed.parties.end[0], "test")
    np.testing.assert_allclose(ends.own, scores.end.own)


def test_validation_and_ensembles_know_the_datasets_too(mixed):
    evaluator = Evaluator(mixed)
    scores = evaluator.everybody(mixed.parties, "validation")
    # Of the first dataset are one image of class 0 and that of class 2, and of the
    # second one of class 0 and one of class 1.
    np.testing.assert_allclose(scores.end.accuracy, [0.5, 0.25])
    np.testing.assert_allclose(scores.end.own, [1.0, 0.75])
    parties = mixed.parties.replace(end=(always(1, 1),))
    assert evaluator.ensemble(parties, "end", "test") == pytest.approx(0.4)
    assert evaluator.mean("end", always(0, 1), "test") == pytest.approx(0.45)


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_dataset_without_images_in_a_split_is_left_out_of_the_scores(lacking):
    partition = domains(
        test=[0, 0, 0, 1, 1, 0, 1, 1, 1, 1], validation=[1 - lacking] * 4, device=[0, 1]
    )
    counts = [[1, 1, 0], [1, 3, 0]]
    made = experiment((5, 4, 1), (2, 1, 1), counts, partition=partition)
    evaluator = Evaluator(made)
    scores = evaluator.everybody(made.parties, "validation")
    np.testing.assert_allclose(scores.cloud, [0.5])
    np.testing.assert_allclose(scores.end.accuracy, [0.5, 0.25])
    # Two images of class 0 and one of class 1; one says class 0, the other class 1.
    own = [np.nan if device == lacking else (0.5, 0.75)[device] for device in (0, 1)]
    np.testing.assert_allclose(scores.end.own, own)
    parties = made.parties.replace(end=(always(1, 1),))
    assert evaluator.ensemble(parties, "end", "validation") == pytest.approx(0.25)


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
    own, images = np.ones(2), np.full(2, 3)
    ends = EndScores(np.array([4, 7]), np.array([0.5, 0.25]), own, own, images, nothing)
    rows = ends.rows(0, "local_only")
    assert [row["party"] for row in rows] == [4, 7]
    everybody = Scores(np.array([1.0]), np.array([1.0]), ends)
    assert everybody.rows(0, "local_only")[-2:] == rows


@pytest.mark.parametrize(
    ("nets", "asked"),
    [
        ([7, 7, 7, 7, 7], 1),
        ([3, 7, 7, 3, 5, 7, 7], 4),  # three, up to the next power of two
        ([1, 2, 3], 3),
        ([1, 1], 1),
    ],
)
def test_equal_nets_are_asked_once_and_few_programs_are_needed(nets, asked):
    tree = {"kernel": np.array(nets)[:, None] * np.ones((1, 4)), "bias": np.array(nets)}
    which, place = distinct(tree)
    assert len(which) == asked
    assert [nets[which[at]] for at in place] == nets


def test_blocks_of_parties_are_put_together_in_their_order(evaluator, monkeypatch):
    monkeypatch.setattr(evaluate, "BLOCK", 2)
    classes = [0, 1, 2, 0, 1]
    hits = evaluator._of_each(evaluator._hits["end"][0], always(*classes), "test")
    np.testing.assert_array_equal(hits, np.diag([5, 4, 1])[classes])
