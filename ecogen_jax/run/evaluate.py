"""Accuracy of every tier: on validation while training, on test for the record."""

from typing import Any, NamedTuple

import jax
import numpy as np

from ecogen_jax.metrics import accuracy, own_accuracy
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.parties import TIERS, Parties
from ecogen_jax.run.build import Experiment, Labelled
from ecogen_jax.serve.inference import Hits, inference

PROGRESS_IMAGES = 2000
"""Validation images that a progress bar's accuracy is taken on."""


class EndScores(NamedTuple):
    """Accuracy of every end device.

    Attributes:
      accuracy: on the whole split, `[devices]`.
      own: on the device's own label distribution, `[devices]`.
    """

    accuracy: np.ndarray
    own: np.ndarray

    def rows(self, cycle: int, phase: str) -> list[dict[str, Any]]:
        """One row a device for `parties.csv`."""
        return [
            _row(cycle, phase, "end", party, value, float(own))
            for party, (value, own) in enumerate(zip(*self, strict=True))
        ]


class Scores(NamedTuple):
    """Accuracy of every party.

    Attributes:
      cloud: `[1]`.
      edge: `[edges]`.
      end: see `EndScores`.
    """

    cloud: np.ndarray
    edge: np.ndarray
    end: EndScores

    def means(self) -> dict[str, float]:
        """Mean by tier, with `end_own` for the devices' own distributions."""
        return {
            "cloud": float(np.mean(self.cloud)),
            "edge": float(np.mean(self.edge)),
            "end": float(np.mean(self.end.accuracy)),
            "end_own": float(np.mean(self.end.own)),
        }

    def rows(self, cycle: int, phase: str) -> list[dict[str, Any]]:
        """One row a party for `parties.csv`."""
        above = [
            _row(cycle, phase, tier, party, value, None)
            for tier in ("cloud", "edge")
            for party, value in enumerate(getattr(self, tier))
        ]
        return above + self.end.rows(cycle, phase)


def _row(
    cycle: int, phase: str, tier: str, party: int, accuracy: float, own: float | None
) -> dict[str, Any]:
    return {
        "cycle": cycle,
        "phase": phase,
        "tier": tier,
        "party": party,
        "accuracy": float(accuracy),
        "own_accuracy": own,
    }


class Evaluator:
    """Inference programs of the three tiers over the splits of one experiment."""

    def __init__(self, experiment: Experiment) -> None:
        self._label_counts = experiment.label_counts
        self._hits: dict[str, Hits] = {
            tier: inference(
                getattr(experiment.nets, tier),
                backend=experiment.mapping.backend,
                num_devices=experiment.mapping.num_devices,
            )
            for tier in TIERS
        }
        dataset = experiment.dataset
        images, labels = experiment.validation
        self._splits: dict[str, Labelled] = {
            "test": (dataset.test_images, dataset.test_labels),
            "validation": (images, labels),
        }
        some = np.random.default_rng(0).permutation(len(labels))[:PROGRESS_IMAGES]
        self._progress: Labelled = (images[some], labels[some])

    def progress(self, tier: str, variables: Variables) -> float:
        """Mean accuracy over parties on a part of the validation split."""
        hits = self._hits[tier](variables, *self._progress)
        return float(np.mean(accuracy(hits, self._totals(self._progress))))

    def ends(self, variables: Variables, split: str) -> EndScores:
        """Accuracy of end devices `[devices, ...]` on `test` or `validation`."""
        chosen = self._splits[split]
        hits = self._hits["end"](variables, *chosen)
        totals = self._totals(chosen)
        own = own_accuracy(hits, totals, self._label_counts)
        return EndScores(accuracy(hits, totals), own)

    def everybody(self, parties: Parties, split: str) -> Scores:
        """Accuracy of all parties on `test` or `validation`."""
        chosen = self._splits[split]
        totals = self._totals(chosen)
        return Scores(
            cloud=accuracy(self._hits["cloud"](parties.cloud, *chosen), totals),
            edge=accuracy(self._hits["edge"](parties.edge, *chosen), totals),
            end=self.ends(parties.end, split),
        )

    def _totals(self, split: Labelled) -> np.ndarray:
        return np.bincount(split[1], minlength=self._label_counts.shape[1])


def to_host(tree: Any) -> Any:
    """Copies arrays to the host, so that stages on different devices can share them."""
    return jax.tree.map(np.asarray, tree)
