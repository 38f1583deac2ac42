"""Stops a run that diverged or collapsed, and says where and what to do."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ecogen_jax.relay.distillers.base import COLLAPSE
from ecogen_jax.relay.stage import Stage

COLLAPSE_STEPS = 50
"""Steps on end with one class alone in a generator's batches that stop a hop."""


class DivergedError(RuntimeError):
    """A loss is not finite; the last checkpoint holds the state before it."""


class CollapsedError(DivergedError):
    """A generator makes a single class only; the last checkpoint is from before."""


def check_round(
    metrics: Mapping[str, np.ndarray],
    *,
    cycle: int,
    stage: Stage,
    number: int,
    checkpoints: Path,
) -> None:
    """Looks at the metrics of every step of a round.

    Args:
      metrics: `[parties, steps]` by name.
      cycle: number of the cycle.
      stage: what ran.
      number: of the round, from 1.
      checkpoints: the folder with the state before the round.

    Raises:
      DivergedError: a loss is not finite.
      CollapsedError: a generator has made only one class for `COLLAPSE_STEPS` steps.
    """
    finite = np.logical_and.reduce([np.isfinite(each) for each in metrics.values()])
    bad = _first(~finite)
    if bad:
        place, kept = _told(cycle, stage, number, checkpoints)
        terms = {name: values[bad] for name, values in metrics.items()}
        wrong = [f"{name} is {x}" for name, x in terms.items() if not np.isfinite(x)]
        raise DivergedError(
            f"{', '.join(wrong)} in {place}, step {bad[1] + 1}, party {bad[0]}. {kept} "
            "lower the learning rates of the stage."
        )
    collapsed = COLLAPSE in metrics and _first(metrics[COLLAPSE] >= COLLAPSE_STEPS)
    if collapsed:
        place, kept = _told(cycle, stage, number, checkpoints)
        # For a federation whose server takes a hop, the settings of the hop are there.
        section = stage.name.replace("/", "_") if stage.is_hop else "up_end_cloud"
        raise CollapsedError(
            f"the generator made one class alone for {COLLAPSE_STEPS} steps on end, "
            f"up to {place}, step {collapsed[1] + 1}, party {collapsed[0]}. {kept} "
            f"lower {section}.generator_learning_rate, or raise "
            f"{section}.weights.balance where the distiller has that term."
        )


def _told(cycle: int, stage: Stage, number: int, checkpoints: Path) -> tuple[str, str]:
    """Where it went wrong, and the last checkpoint."""
    return (
        f"cycle {cycle}, stage {stage.name}, round {number}",
        f"The last good state is the newest checkpoint in {checkpoints}; the same "
        "config would go wrong again:",
    )


def _first(wrong: np.ndarray) -> tuple[int, int] | None:
    """The party and the step of the earliest of `[parties, steps]`."""
    if not wrong.any():
        return None
    steps, parties = np.nonzero(wrong.T)
    return int(parties[0]), int(steps[0])
