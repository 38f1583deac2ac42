"""Further trials of A4 for those that `relay` is compared with.

`relay` has had more trials than the four of `tune`. The others get as many, in three
stages, the second and third for those near `relay` alone. A stage takes what was chosen
before and changes of it (see `changes`), one at a time, with a third of the rounds;
then, with all rounds, the best of those that gained, together. These are taken if they
end higher on validation than what was chosen before, run again. One without a gain has
fewer trials.
"""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
from rich.console import Console

from papers_repro import trials
from papers_repro.dfkd import changes, tune
from papers_repro.dfkd.experiments import REFINED, TUNED, Budget
from papers_repro.trials import Trial

PARTS = 3
"""The rounds of a budget are divided by this for the first trials of a stage."""


class Stage(NamedTuple):
    """What is tried in one go.

    Attributes:
        changes: by method.
        together: how many of those that gained are taken together.
    """

    changes: Mapping[str, tuple[str, ...]]
    together: tuple[int, ...]


STAGES = (
    Stage(changes.FIRST, (2,)),
    Stage(changes.SECOND, (2, 3)),
    Stage(changes.THIRD, (2,)),
)
"""Beside what was chosen before: seven trials and one with all rounds in the first,
twelve and two in the second, six and one in the third."""


class _Place(NamedTuple):
    """Where trials are made, and how; see `tune.tune`."""

    workdir: str
    budgets: Mapping[tuple[str, float], Budget]
    num_jobs: int
    console: Console


def refine(
    workdir: str,
    budgets: Mapping[tuple[str, float], Budget],
    num_jobs: int,
    console: Console,
    path: pathlib.Path = REFINED,
) -> tuple[pd.DataFrame, list[str]]:
    """Makes all further trials; see `tune.tune` for the arguments.

    Returns:
        A row a trial: stage (from 1), method, what was chosen before it, change of
        that, rounds ("part" or "all"), validation (percent), and whether it is taken:
        one trial of its last stage for each method. What failed, and where its log is.

    Raises:
        ValueError: `tune` has not chosen for all of them.
    """
    place = _Place(workdir, budgets, num_jobs, console)
    before, frames = _chosen(), list[pd.DataFrame]()
    for number, stage in enumerate(STAGES, start=1):
        frame, failed = _one_stage(stage, before, place)
        frames.append(frame.assign(stage=number))
        if failed:
            break
        taken = frame[frame["chosen"]]
        before |= {
            name: trials.joined(before[name], change)
            for name, change in zip(taken["method"], taken["change"], strict=True)
        }
    whole = pd.concat(frames, ignore_index=True)
    last = whole.groupby("method")["stage"].transform("max")
    whole["chosen"] &= whole["stage"] == last
    whole = whole[["stage", *(name for name in whole if name != "stage")]]
    if not failed:
        trials.write(path, whole)
    return whole, failed


def _one_stage(
    stage: Stage, before: Mapping[str, str], place: _Place
) -> tuple[pd.DataFrame, list[str]]:
    """The trials of a stage, as rows of `refine`, and what failed."""

    def made(
        todo: list[Trial], sizes: Mapping[tuple[str, float], Budget], rounds: str
    ) -> tuple[dict[Trial, float], list[str]]:
        whole = {one: _joined(one, before) for one in todo}
        jobs, where = tune.planned(whole.values(), place.workdir, sizes, rounds)
        scores, failed = trials.make(
            jobs, where, tune.LAST, place.num_jobs, place.console
        )
        return {one: scores[whole[one]] for one in todo if whole[one] in scores}, failed

    part, failed = made(_first(stage), _fewer(place.budgets), "part")
    # Without a gain, some of these are the same trial again, which is made once.
    longer = [] if failed else [Trial(name, "") for name in stage.changes]
    longer += [
        Trial(one.method, best(part, one.method, count))
        for one in longer
        for count in stage.together
    ]
    scores, more = made(longer, place.budgets, "all")
    return _frame(stage, part, scores, before), failed + more


def _chosen() -> dict[str, str]:
    """What `tune` chose, or a ValueError if it has not for all."""
    tuned = trials.chosen(TUNED)
    missing = [name for name in STAGES[0].changes if name not in tuned]
    if missing:
        raise ValueError(
            f"{TUNED} has no setting of {', '.join(missing)}; run with --tune first"
        )
    return tuned


def _first(stage: Stage) -> list[Trial]:
    """What is tried first: what was chosen before, and each change of it."""
    return [
        Trial(name, change)
        for name, own in stage.changes.items()
        for change in ("", *own)
    ]


def _fewer(
    budgets: Mapping[tuple[str, float], Budget],
) -> dict[tuple[str, float], Budget]:
    """Budgets with the rounds of the first trials."""
    return {
        key: budget._replace(rounds=max(1, budget.rounds // PARTS))
        for key, budget in budgets.items()
    }


def _joined(trial: Trial, before: Mapping[str, str]) -> Trial:
    """A trial with what was chosen before."""
    return trial._replace(change=trials.joined(before[trial.method], trial.change))


def best(scores: Mapping[Trial, float], method: str, count: int) -> str:
    """The best changes that gained, of different fields; "" where none did.

    Args:
        scores: of the trials with fewer rounds, that without a change among them.
        method: whose.
        count: how many changes, if as many gained.
    """
    own = {
        trial.change: score for trial, score in scores.items() if trial.method == method
    }
    gained = [change for change, score in own.items() if score > own[""]]
    found: dict[str, str] = {}
    for change in sorted(gained, key=own.__getitem__, reverse=True):
        found.setdefault(change.partition("=")[0], change)
    return " ".join(list(found.values())[:count])


def _frame(
    stage: Stage,
    part: Mapping[Trial, float],
    whole: Mapping[Trial, float],
    before: Mapping[str, str],
) -> pd.DataFrame:
    """All trials, those of a method together; the best with all rounds are taken."""
    rows = [
        (name, before[name], trial.change, rounds, score)
        for name in stage.changes
        for rounds, scores in (("part", part), ("all", whole))
        for trial, score in scores.items()
        if trial.method == name
    ]
    columns = ["method", "before", "change", "rounds", "validation"]
    frame = pd.DataFrame(rows, columns=columns)
    taken = frame[frame["rounds"] == "all"].groupby("method")["validation"].idxmax()
    return frame.assign(chosen=frame.index.isin(taken))
