"""Accuracy of every tier: on validation while training, on test for the record."""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ecogen_jax.metrics import accuracy, own_accuracy
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.parties import TIERS, Parties
from ecogen_jax.run.build import Experiment, Labelled
from ecogen_jax.serve.inference import Hits, ensemble, inference

PROGRESS_IMAGES = 5000
"""Validation images that a progress bar's accuracy is taken on."""

END_COLUMNS = {
    "end": "accuracy",
    "end_own": "own_accuracy",
    "end_unseen": "unseen_accuracy",
}
"""Name of a mean over end devices -> column of `parties.csv`."""


class EndScores(NamedTuple):
    """Accuracy of end devices.

    Attributes:
      device: their numbers, `[devices]`.
      accuracy: on the whole split, `[devices]`.
      own: on the device's own label distribution, `[devices]`; NaN for a device
        without private images.
      unseen: mean over the classes of which the device has no private training image,
        `[devices]`; NaN for a device that has all classes, or no images at all.
    """

    device: np.ndarray
    accuracy: np.ndarray
    own: np.ndarray
    unseen: np.ndarray

    def rows(self, cycle: int, phase: str) -> list[dict[str, Any]]:
        """One row a device for `parties.csv`."""
        return [
            _row(cycle, phase, "end", *values)
            for values in zip(*(column.tolist() for column in self), strict=True)
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

    def means(self) -> dict[str, float | None]:
        """Mean by tier, and those of `end_means`."""
        above = {
            tier: float(np.mean(getattr(self, tier))) for tier in ("cloud", "edge")
        }
        return above | end_means(self.end.rows(0, ""))

    def rows(self, cycle: int, phase: str) -> list[dict[str, Any]]:
        """One row a party for `parties.csv`."""
        above = [
            _row(cycle, phase, tier, party, value)
            for tier in ("cloud", "edge")
            for party, value in enumerate(getattr(self, tier).tolist())
        ]
        return above + self.end.rows(cycle, phase)


def end_means(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Means over end devices from their rows.

    Args:
      rows: from `EndScores.rows`.

    Returns:
      `end`, `end_own` and `end_unseen`; None where no device has a value.
    """

    def mean(column: str) -> float | None:
        values = [row[column] for row in rows if row[column] is not None]
        return float(np.mean(values)) if values else None

    return {name: mean(column) for name, column in END_COLUMNS.items()}


def _row(
    cycle: int,
    phase: str,
    tier: str,
    party: int,
    accuracy: float,
    own: float = np.nan,
    unseen: float = np.nan,
) -> dict[str, Any]:
    return {
        "cycle": cycle,
        "phase": phase,
        "tier": tier,
        "party": party,
        "accuracy": accuracy,
        "own_accuracy": None if np.isnan(own) else own,
        "unseen_accuracy": None if np.isnan(unseen) else unseen,
    }


def unseen_accuracy(
    hits: np.ndarray, totals: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Mean accuracy over the classes that a party never saw.

    Args:
      hits: right answers by class, `[parties, classes]`.
      totals: images of each class in the split, `[classes]`.
      counts: each party's training images by class, `[parties, classes]`.

    Returns:
      `[parties]`; NaN where a party saw every class that the split holds.
    """
    unseen = (counts == 0) & (totals > 0)
    share = np.where(unseen, hits, 0) / np.maximum(totals, 1)
    num_unseen = unseen.sum(axis=-1)
    mean = share.sum(axis=-1) / np.maximum(num_unseen, 1)
    return np.where(num_unseen > 0, mean, np.nan)


class Evaluator:
    """Inference programs of the three tiers over the splits of one experiment."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        mapping = experiment.mapping
        self._hits: dict[str, list[Hits]] = {
            tier: [
                inference(net, backend=mapping.backend, num_devices=mapping.num_devices)
                for net in experiment.nets.of_tier(tier)
            ]
            for tier in TIERS
        }
        num_kinds = len(experiment.nets.end)
        self._devices = [
            experiment.topology.devices_of_kind(kind, num_kinds)
            for kind in range(num_kinds)
        ]
        dataset = experiment.dataset
        images, labels = experiment.validation
        some = np.random.default_rng(0).permutation(len(labels))[:PROGRESS_IMAGES]
        self._splits: dict[str, Labelled] = {
            "test": (dataset.test_images, dataset.test_labels),
            "validation": (images, labels),
            "progress": (images[some], labels[some]),
        }
        self._answered: dict[tuple[str, str], tuple[list[Any], np.ndarray]] = {}

    def mean(self, tier: str, variables: Variables, split: str, kind: int = 0) -> float:
        """Mean accuracy over variables `[parties, ...]` of one kind of net.

        Args:
          tier: whose net it is.
          variables: of any number of parties.
          split: `test`, `validation`, or `progress`, a part of the latter.
          kind: which of the tier's nets it is.
        """
        chosen = self._splits[split]
        hits = self._hits[tier][kind](variables, *chosen)
        return float(np.mean(accuracy(hits, self._totals(chosen))))

    def ends(self, variables: Variables, split: str, kind: int = 0) -> EndScores:
        """Accuracy of the end devices of one kind, on `test` or `validation`."""
        hits = self._hits["end"][kind](variables, *self._splits[split])
        return self._end_scores(self._devices[kind], hits, split)

    def tier(self, parties: Parties, tier: str, split: str) -> np.ndarray:
        """Accuracy of a tier's parties in their order, on `test` or `validation`."""
        hits = self._tier_hits(parties, tier, split)
        return accuracy(hits, self._totals(self._splits[split]))

    def everybody(self, parties: Parties, split: str) -> Scores:
        """Accuracy of all parties on `test` or `validation`."""
        hits = self._tier_hits(parties, "end", split)
        return Scores(
            cloud=self.tier(parties, "cloud", split),
            edge=self.tier(parties, "edge", split),
            end=self._end_scores(np.arange(len(hits)), hits, split),
        )

    def ensemble(self, parties: Parties, tier: str, split: str) -> float:
        """Accuracy of the mean of the logits of all parties of a tier."""
        mapping, chosen = self._experiment.mapping, self._splits[split]
        together = ensemble(
            self._experiment.nets.of_tier(tier),
            backend=mapping.backend,
            num_devices=mapping.num_devices,
        )
        hits = together(parties.of_tier(tier), *chosen)
        return float(accuracy(hits[None], self._totals(chosen))[0])

    def _tier_hits(self, parties: Parties, tier: str, split: str) -> np.ndarray:
        """`[parties, classes]`; asked again for the same nets, the same answer."""
        groups = parties.of_tier(tier)
        leaves = jax.tree.leaves(groups)
        known, hits = self._answered.get((tier, split), ([], np.zeros(0)))
        if len(known) == len(leaves) and all(map(operator.is_, known, leaves)):
            return hits
        chosen = self._splits[split]
        answers = [
            one(group, *chosen)
            for one, group in zip(self._hits[tier], groups, strict=True)
        ]
        hits = np.concatenate(answers)
        if tier == "end":
            hits = hits[np.argsort(np.concatenate(self._devices))]
        self._answered[tier, split] = (leaves, hits)
        return hits

    def _end_scores(
        self, device: np.ndarray, hits: np.ndarray, split: str
    ) -> EndScores:
        totals = self._totals(self._splits[split])
        counts = self._experiment.label_counts[device]
        own = unseen = np.full(len(device), np.nan)
        if counts.any():
            own = own_accuracy(hits, totals, counts)
            unseen = unseen_accuracy(hits, totals, counts)
        return EndScores(device, accuracy(hits, totals), own, unseen)

    def _totals(self, split: Labelled) -> np.ndarray:
        num_classes = self._experiment.label_counts.shape[1]
        return np.bincount(split[1], minlength=num_classes)


def to_host(tree: Any) -> Any:
    """Copies arrays to the host, so that stages on different devices can share them."""
    return jax.tree.map(np.asarray, tree)
