"""Accuracy of every tier: on validation during training, on test for reporting."""

import hashlib
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ecogen_jax import mesh
from ecogen_jax.metrics import (
    accuracy,
    own_accuracy,
    seen_accuracy,
    seen_images,
    unseen_accuracy,
)
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.parties import BLOCK, TIERS, Parties
from ecogen_jax.relay.stage import Stage
from ecogen_jax.run.build import Experiment, Labelled
from ecogen_jax.serve.inference import Hits, answers, ensemble, inference
from ecogen_jax.types import PyTree

SPLITS = ("test", "validation")
"""On which results are scored."""

PROGRESS_IMAGES = 5000
"""Validation images that a progress bar's accuracy is taken on."""

END_COLUMNS = {
    "end": "accuracy",
    "end_own": "own_accuracy",
    "end_unseen": "unseen_accuracy",
}
"""Name of a mean over end devices -> column of `parties.csv`."""

WORST = 10
"""One device in so many counts as the worst ones, and one at least."""


class EndScores(NamedTuple):
    """Accuracy of end devices.

    If edges differ in dataset, classes of different datasets are different classes.

    Attributes:
      device: their numbers, `[devices]`.
      accuracy: on the whole split, `[devices]`.
      own: on the device's own label distribution, `[devices]`; NaN for a device
        without private images.
      seen: on all images of the classes of which the device has a private training
        image, `[devices]`; NaN for a device without any.
      seen_images: how many these are, `[devices]`.
      unseen: mean over the classes of which the device has no private training image,
        `[devices]`; NaN for a device that has all classes, or no images at all.
    """

    device: np.ndarray
    accuracy: np.ndarray
    own: np.ndarray
    seen: np.ndarray
    seen_images: np.ndarray
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
      `end`, `end_own`, `end_unseen`; `end_own_worst`, which is `end_own` over the tenth
      of the devices where it is lowest; and `end_seen`, which weights devices by the
      images of the classes that they have seen. None where no device has a value.
    """

    def known(column: str) -> list[float]:
        return [row[column] for row in rows if row[column] is not None]

    own, seen = sorted(known("own_accuracy")), known("seen_accuracy")
    weights = [row["seen_images"] for row in rows if row["seen_accuracy"] is not None]
    means = {name: _mean(known(column)) for name, column in END_COLUMNS.items()}
    return means | {
        "end_own_worst": _mean(own[: max(1, len(own) // WORST)]),
        "end_seen": float(np.average(seen, weights=weights)) if seen else None,
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _row(
    cycle: int,
    phase: str,
    tier: str,
    party: int,
    accuracy: float,
    own: float = np.nan,
    seen: float = np.nan,
    num_seen: int | None = None,
    unseen: float = np.nan,
) -> dict[str, Any]:
    return {
        "cycle": cycle,
        "phase": phase,
        "tier": tier,
        "party": party,
        "accuracy": accuracy,
        "own_accuracy": None if np.isnan(own) else own,
        "seen_accuracy": None if np.isnan(seen) else seen,
        "seen_images": num_seen,
        "unseen_accuracy": None if np.isnan(unseen) else unseen,
    }


class Evaluator:
    """Inference programs of the three tiers over the splits of one experiment."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        mapping = experiment.mapping
        self._hits: dict[str, list[Hits]] = {
            tier: [
                inference(net, **mapping._asdict())
                for net in experiment.nets.of_tier(tier)
            ]
            for tier in TIERS
        }
        num_kinds = len(experiment.nets.end)
        self._devices = [
            experiment.topology.devices_of_kind(kind, num_kinds)
            for kind in range(num_kinds)
        ]
        dataset, split = experiment.dataset, experiment.partition
        images, labels = experiment.validation
        some = np.random.default_rng(0).permutation(len(labels))[:PROGRESS_IMAGES]
        # By domain, since hits are by class, and a class may be in several domains.
        test = _by_domain(dataset.test_images, dataset.test_labels, split, "test")
        self._splits: dict[str, list[Labelled]] = {
            "test": test,
            "validation": _by_domain(images, labels, split, "validation"),
            "progress": [(images[some], labels[some])],
        }
        self._counts = _spread(
            experiment.label_counts, split.get("device_domains"), num_domains=len(test)
        )
        self._answered: dict[tuple[str, str], tuple[list[Any], np.ndarray]] = {}
        self._teachers: dict[str, Hits] = {}

    def mean(self, tier: str, variables: Variables, split: str, kind: int = 0) -> float:
        """Mean accuracy over variables `[parties, ...]` of one kind of net.

        Args:
          tier: whose net it is.
          variables: of any number of parties.
          split: `test`, `validation`, or `progress`, a part of the latter.
          kind: which of the tier's nets it is.
        """
        hits = self._of_each(self._hits[tier][kind], variables, split)
        return float(np.mean(accuracy(hits, self._totals(split))))

    def ends(self, variables: Variables, split: str, kind: int = 0) -> EndScores:
        """Accuracy of the end devices of one kind, on `test` or `validation`."""
        hits = self._of_each(self._hits["end"][kind], variables, split)
        return self._end_scores(self._devices[kind], hits, split)

    def tier(self, parties: Parties, tier: str, split: str) -> np.ndarray:
        """Accuracy of a tier's parties in their order, on `test` or `validation`."""
        hits = self._tier_hits(parties, tier, split)
        return accuracy(hits, self._totals(split))

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
        mapping = self._experiment.mapping
        together = ensemble(self._experiment.nets.of_tier(tier), **mapping._asdict())
        hits = self._ask(together, parties.of_tier(tier), split)
        return float(accuracy(hits[None], self._totals(split))[0])

    def teachers(self, stage: Stage, inputs: PyTree, split: str) -> np.ndarray:
        """Accuracy of the teachers of each party of a hop together, `[parties]`.

        Args:
          stage: the hop, with `teachers`.
          inputs: of its parties.
          split: `test` or `validation`.
        """
        assert stage.teachers is not None
        if stage.name not in self._teachers:
            mapping = self._experiment.mapping
            self._teachers[stage.name] = answers(stage.teachers, **mapping._asdict())
        hits = self._ask(self._teachers[stage.name], mesh.to_host(inputs), split)
        return accuracy(hits, self._totals(split))

    def _ask(
        self, hits: Callable[..., np.ndarray], nets: Any, split: str
    ) -> np.ndarray:
        """Correct predictions by domain and class, `[..., domains * classes]`."""
        each = [hits(nets, *images) for images in self._splits[split]]
        return np.concatenate(each, axis=-1)

    def _of_each(self, hits: Hits, nets: Variables, split: str) -> np.ndarray:
        """Like `_ask`, by party and in blocks; equal nets are asked once."""
        asked, place = distinct(nets)
        found = []
        for begin in range(0, len(asked), BLOCK):
            here = asked[begin : begin + BLOCK]
            some = jax.tree.map(lambda leaf, here=here: leaf[here], nets)
            found.append(self._ask(hits, some, split))
        return np.concatenate(found)[place]

    def _tier_hits(self, parties: Parties, tier: str, split: str) -> np.ndarray:
        """Like `_ask`, by party; results for the same nets are cached."""
        groups = parties.of_tier(tier)
        leaves = jax.tree.leaves(groups)
        known, hits = self._answered.get((tier, split), ([], np.zeros(0)))
        if len(known) == len(leaves) and all(map(operator.is_, known, leaves)):
            return hits
        answers = [
            self._of_each(one, group, split)
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
        totals, counts = self._totals(split), self._counts[device]
        unseen = unseen_accuracy(hits, totals, counts)
        return EndScores(
            device,
            accuracy(hits, totals),
            own=own_accuracy(hits, totals, counts),
            seen=seen_accuracy(hits, totals, counts),
            seen_images=seen_images(totals, counts),
            unseen=np.where(counts.any(axis=-1), unseen, np.nan),
        )

    def _totals(self, split: str) -> np.ndarray:
        """Images by domain and class, `[domains * classes]`."""
        num_classes = self._experiment.label_counts.shape[1]
        each = [
            np.bincount(labels, minlength=num_classes)
            for _, labels in self._splits[split]
        ]
        return np.concatenate(each)


def distinct(nets: PyTree) -> tuple[np.ndarray, np.ndarray]:
    """Which of many nets differ.

    In a large federation few nets may differ: without personalisation all devices
    have the cloud's.

    Args:
      nets: `[parties, ...]`.

    Returns:
      The parties to ask: one for each net that differs, and some of them again, up to
      the next power of two, so that few numbers of parties need a program of their own;
      or all parties, if they are fewer. And the place of each party's net among them,
      `[parties]`.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(nets)]
    parties = leaves[0].shape[0]
    digests = []
    for party in range(parties):
        digest = hashlib.blake2b()
        for leaf in leaves:
            digest.update(leaf[party].tobytes())
        digests.append(digest.digest())
    _, first, place = np.unique(digests, return_index=True, return_inverse=True)
    asked = 1 << (len(first) - 1).bit_length()
    if asked >= parties:
        return np.arange(parties), np.arange(parties)
    return np.resize(first, asked), place


def _by_domain(
    images: np.ndarray,
    labels: np.ndarray,
    partition: Mapping[str, np.ndarray],
    half: str,
) -> list[Labelled]:
    """Images and labels of one half, `test` or `validation`, for each domain."""
    if "device_domains" not in partition:
        return [(images, labels)]
    # Each domain has an edge, and so a device; it may lack images in this half.
    num_domains = partition["device_domains"].max() + 1
    here = (partition[f"{half}_domains"] == domain for domain in range(num_domains))
    return [(images[chosen], labels[chosen]) for chosen in here]


def _spread(
    counts: np.ndarray, domains: np.ndarray | None, *, num_domains: int
) -> np.ndarray:
    """Counts by device and class, each in the columns of the device's domain."""
    if domains is None:
        return counts
    spread = np.zeros((len(counts), num_domains, counts.shape[1]), counts.dtype)
    spread[np.arange(len(counts)), domains] = counts
    return spread.reshape(len(counts), -1)
