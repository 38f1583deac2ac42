"""The results of a finished hop: an entry of the `hops` of `summary.json`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecogen_jax.energy.ledger import Entry
from ecogen_jax.relay.parties import Parties
from ecogen_jax.relay.stage import Stage
from ecogen_jax.run.evaluate import SPLITS, Evaluator
from ecogen_jax.types import PyTree


def hop_entry(
    cycle: int,
    stage: Stage,
    *,
    evaluator: Evaluator,
    parties: Parties,
    inputs: PyTree,
    curve: Sequence[float],
    seconds: Mapping[str, float],
    messages: Sequence[Entry],
) -> dict[str, Any]:
    """Describes a hop after its end.

    Args:
      cycle: number of the cycle.
      stage: of phase `down` or `up`.
      evaluator: of the experiment.
      parties: after the stage.
      inputs: of the stage: the teachers of each party that trains.
      curve: see `training_curve`.
      seconds: of the stage on this host, by what the host did.
      messages: the ledger's entries of the messages.

    Returns:
      Accuracies of the teachers (mean), of each student's teachers together (mean over
      students), and of the receivers (mean and worst), properties of the curve,
      `train` and `compile` seconds, and bytes by link.
    """
    teacher, student = (
        {split: evaluator.tier(parties, tier, split) for split in SPLITS}
        for tier in (stage.sender, stage.student)
    )
    together = teacher
    if stage.teachers:
        together = {split: evaluator.teachers(stage, inputs, split) for split in SPLITS}
    return {
        "cycle": cycle,
        "stage": stage.name,
        "tier": stage.student,
        "teacher": {"tier": stage.sender, **_means(teacher)},
        "together": _means(together),
        **_means(student),
        "worst_test": float(student["test"].min()),
        **training_curve(curve),
        "seconds": {name: seconds[name] for name in ("train", "compile")},
        "link": {
            entry.place: {"up_bytes": entry.up_bytes, "down_bytes": entry.down_bytes}
            for entry in messages
        },
    }


def training_curve(curve: Sequence[float]) -> dict[str, float]:
    """Describes validation accuracy over the rounds of a stage.

    Args:
      curve: accuracy after each round, on up to `evaluate.PROGRESS_IMAGES` images,
        `[rounds]`.

    Returns:
      Mean, peak and last value, and the largest drop below the highest value so far
      among the rounds of the last half (the middle one included).
    """
    values = np.asarray(curve)
    drop = np.maximum.accumulate(values) - values
    return {
        "mean_over_training_validation": float(values.mean()),
        "peak_validation": float(values.max()),
        "last_validation": float(values[-1]),
        "largest_drop_last_half": float(drop[len(values) // 2 :].max()),
    }


def _means(scores: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {split: float(values.mean()) for split, values in scores.items()}
