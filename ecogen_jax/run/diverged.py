"""Stops a run that diverged or collapsed, and says where and what to do."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ecogen_jax.relay.distillers.base import COLLAPSE
from ecogen_jax.relay.federated.engine import SERVER
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
      metrics: `[parties, steps]` by name; if the stage is `together`, means of the
        round, `[1, 1]`.
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
        place, kept = _told(cycle, stage, number, checkpoints, bad)
        terms = {name: float(values[bad]) for name, values in metrics.items()}
        wrong = {name: x for name, x in terms.items() if not np.isfinite(x)}
        said = ", ".join(_term(stage, name, x) for name, x in wrong.items())
        raise DivergedError(
            f"{said} in {place}. {kept} lower the learning rates of the stage."
        )
    collapsed = COLLAPSE in metrics and _first(metrics[COLLAPSE] >= COLLAPSE_STEPS)
    if collapsed:
        place, kept = _told(cycle, stage, number, checkpoints, collapsed)
        # For a federation whose server takes a hop, the settings of the hop are there.
        section = stage.name.replace("/", "_") if stage.is_hop else "up_end_cloud"
        raise CollapsedError(
            f"the generator made one class alone for {COLLAPSE_STEPS} steps on end, "
            f"up to {place}. {kept} lower {section}.generator_learning_rate, or raise "
            f"{section}.weights.balance where the distiller has that term."
        )


def _told(
    cycle: int, stage: Stage, number: int, checkpoints: Path, at: tuple[int, int]
) -> tuple[str, str]:
    """Where it went wrong, and the last checkpoint."""
    place = f"cycle {cycle}, stage {stage.name}, round {number}"
    if not stage.together:
        party, step = at
        own = stage.members[party] if stage.members else party
        place += f", step {step + 1}, party {own}"
    return (
        place,
        f"The last good state is the newest checkpoint in {checkpoints}; the same "
        "config would go wrong again:",
    )


def _term(stage: Stage, name: str, value: float) -> str:
    """A term and its value, and of what it is the mean."""
    if not stage.together:
        return f"{name} is {value}"
    server = name.startswith(SERVER)
    over = "the steps of the server" if server else "the devices of the round"
    return f"{name} is {value} (mean over {over})"


def _first(wrong: np.ndarray) -> tuple[int, int] | None:
    """The party and the step of the earliest of `[parties, steps]`."""
    if not wrong.any():
        return None
    steps, parties = np.nonzero(wrong.T)
    return int(parties[0]), int(steps[0])
