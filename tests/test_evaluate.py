"""Scores of all parties, from nets whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.data.sources import Dataset
from ecogen_jax.energy import rates
from ecogen_jax.nets.functional import Net, Output, Variables
from ecogen_jax.relay.messages import GeneratorAndStudent
from ecogen_jax.relay.parties import Nets, Parties, Topology
from ecogen_jax.relay.stage import Mapping
from ecogen_jax.run import evaluate
from ecogen_jax.run.build import Experiment
from ecogen_jax.run.evaluate import EndScores, Evaluator, Scores
from tests import toy_nets


def answer(variables, *inputs, train):
    """A net that gives the class in its parameters to every image."""
    del train
    (images,) = inputs
    logits = jax.nn.one_hot(variables.params, toy_nets.CLASSES)
    return Output(jnp.broadcast_to(logits[None], (len(images), 3)), {}, {})


def init(key):
    del key
    return Variables(jnp.zeros((), jnp.int32), {})


def always(*classes):
    return Variables(np.array(classes, np.int32), {})


def labelled(*counts):
    """Blank images, so many of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.zeros((len(labels), *toy_nets.SHAPE), np.uint8), labels


NO_RELAY = GeneratorAndStudent(always(0), always(0), np.zeros((1, 3), np.int32))
PARTIES = Parties(always(0), always(1, 2), always(0, 2), NO_RELAY, NO_RELAY)
RATES = rates.rates(
    devices=dict.fromkeys(rates.TIERS, "t4"),
    links=dict.fromkeys(rates.LINKS, "wifi"),
    country="World",
    contracted_share=dict.fromkeys(rates.TIERS, 0.0),
)
NETS = Nets(*[Net(init, answer)] * 4)


def evaluate_on(test, validation, label_counts):
    """The evaluator of an experiment with two splits of so many images a class."""
    images, labels = labelled(*test)
    dataset = Dataset("fake", images, labels, images, labels, 3, True, "made here")
    experiment = Experiment(
        dataset=dataset,
        validation=labelled(*validation),
        topology=Topology(2, 1),
        nets=NETS,
        parties=PARTIES,
        plan=[],
        cycles=1,
        mapping=Mapping("vmap", 1),
        rates=RATES,
        partition={},
        label_counts=np.array(label_counts),
        key=jax.random.key(0),
    )
    return Evaluator(experiment)


@pytest.fixture
def evaluator():
    return evaluate_on((5, 4, 1), (1, 1, 2), [[3, 1, 0], [0, 0, 2]])


def test_everybody_on_both_splits(evaluator):
    test = evaluator.everybody(PARTIES, "test")
    np.testing.assert_allclose(test.cloud, [0.5])
    np.testing.assert_allclose(test.edge, [0.4, 0.1])
    np.testing.assert_allclose(test.end.accuracy, [0.5, 0.1])
    # Three quarters of the first device's images are of the class it always answers.
    np.testing.assert_allclose(test.end.own, [0.75, 1.0])
    validation = evaluator.everybody(PARTIES, "validation")
    np.testing.assert_allclose(validation.edge, [0.25, 0.5])
    np.testing.assert_allclose(validation.end.own, [0.75, 1.0])


def test_means_and_rows_of_a_phase(evaluator):
    scores = evaluator.everybody(PARTIES, "test")
    expected = {"cloud": 0.5, "edge": 0.25, "end": 0.3, "end_own": 0.875}
    assert scores.means() == pytest.approx(expected)
    rows = scores.rows(2, "local")
    assert [(row["tier"], row["party"]) for row in rows] == [
        ("cloud", 0),
        *(("edge", 0), ("edge", 1)),
        *(("end", 0), ("end", 1)),
    ]
    assert {(row["cycle"], row["phase"]) for row in rows} == {(2, "local")}
    assert [row["own_accuracy"] for row in rows] == [None, None, None, 0.75, 1.0]
    assert rows[2]["accuracy"] == pytest.approx(0.1)


def test_progress_is_the_mean_over_parties_on_validation_images(evaluator, monkeypatch):
    assert evaluator.progress("edge", PARTIES.edge) == pytest.approx(0.375)
    assert evaluator.progress("end", always(2, 2)) == pytest.approx(0.5)
    monkeypatch.setattr(evaluate, "PROGRESS_IMAGES", 1)
    assert evaluator.progress("edge", always(1)) in (0.25, 0.0, 1.0)


def test_progress_takes_a_part_of_a_large_split(monkeypatch):
    monkeypatch.setattr(evaluate, "PROGRESS_IMAGES", 10)
    evaluator = evaluate_on((1, 1, 1), (40, 30, 30), [[1, 1, 1]])
    shares = [evaluator.progress("cloud", always(label)) for label in range(3)]
    assert sum(shares) == pytest.approx(1.0)
    assert all(share * 10 == pytest.approx(round(share * 10)) for share in shares)


def test_the_rows_of_devices_alone_are_those_of_a_baseline():
    ends = EndScores(np.array([0.5, 0.25]), np.array([1.0, 0.75]))
    rows = ends.rows(0, "local_only")
    assert [row["own_accuracy"] for row in rows] == [1.0, 0.75]
    everybody = Scores(np.array([1.0]), np.array([1.0]), ends)
    assert everybody.rows(0, "local_only")[-2:] == rows


def test_to_host_leaves_numpy_arrays():
    tree = evaluate.to_host({"a": jnp.ones(2), "b": (jnp.zeros(()), None)})
    assert type(tree["a"]) is np.ndarray
    assert type(tree["b"][0]) is np.ndarray
    assert tree["b"][1] is None
