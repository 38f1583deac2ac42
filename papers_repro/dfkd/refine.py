"""Further trials of A4 for those that `relay` is compared with, so that all have 13.

`relay` had nine trials before the four of `tune`. The others get as many: first what
`tune` chose and `CHANGES` of it, one at a time, with a third of the rounds; then, with
all rounds, the best two of those that gained, together. These are taken if they end
higher on validation than what `tune` chose.
"""

import pathlib
from collections.abc import Mapping

import pandas as pd
from rich.console import Console

from papers_repro import trials
from papers_repro.dfkd import tune
from papers_repro.dfkd.experiments import REFINED, TUNED, Budget
from papers_repro.trials import Trial

CHANGES: Mapping[str, tuple[str, ...]] = {
    "dafl": (
        "learning_rate=0.008",
        "generator_learning_rate=0.08",
        "generator_learning_rate=0.5",
        "shift=2",
        "temperature=4",
        "weights.balance=10",
        "weights.activation=0",
    ),
    "zskt": (
        "learning_rate=0.004",
        "learning_rate=0.008",
        "generator_learning_rate=0.05",
        "shift=2",
        "temperature=4",
        "weights.attention=250",
        "generator_average=0.9",
    ),
    "dfad": (
        "learning_rate=0.008",
        "learning_rate=0.016",
        "generator_learning_rate=0.005",
        "generator_learning_rate=0.0003",
        "shift=2",
        "generator_average=0.9",
        "generator_average=0.99",
    ),
    "dfq": (
        "learning_rate=0.004",
        "generator_learning_rate=0.05",
        "shift=2",
        "temperature=4",
        "weights.adversarial=0.3",
        "weights.balance=5",
        "weights.batchnorm=3",
    ),
    "deep_inversion": (
        "generator_learning_rate=0.02",
        "shift=2",
        "temperature=8",
        "weights.adversarial=0",
        "weights.adversarial=1",
        "weights.batchnorm=1",
        "weights.total_variation=0",
    ),
    "cmi": (
        "learning_rate=0.004",
        "generator_learning_rate=0.05",
        "shift=2",
        "temperature=8",
        "weights.adversarial=0.15",
        "weights.batchnorm=10",
        "weights.contrastive=0.2",
    ),
    "fast": (
        "learning_rate=0.004",
        "generator_learning_rate=0.05",
        "shift=2",
        "temperature=8",
        "weights.adversarial=0.3",
        "weights.batchnorm=1",
        "bank_size=16384",
    ),
    "nayer": (
        "learning_rate=0.004",
        "generator_learning_rate=0.05",
        "shift=2",
        "temperature=8",
        "weights.adversarial=0.3",
        "weights.batchnorm=1",
        "weights.cross_entropy=1",
    ),
    "pre_dfkd": (
        "generator_learning_rate=0.05",
        "shift=2",
        "temperature=1",
        "weights.adversarial=0",
        "weights.adversarial=1",
        "weights.balance=10",
        "weights.activation=0",
    ),
    "dense": (
        "learning_rate=0.001",
        "learning_rate=0.004",
        "generator_learning_rate=0.05",
        "shift=2",
        "temperature=8",
        "weights.adversarial=0.3",
        "weights.batchnorm=10",
    ),
    "co_boosting": (
        "learning_rate=0.008",
        "generator_learning_rate=0.005",
        "shift=2",
        "temperature=20",
        "weights.adversarial=0.1",
        "weights.adversarial=0.3",
        "weights.batchnorm=1",
    ),
}
"""What a distiller tries beside what was chosen before, one change a trial.

Shifted images, a larger bank and other weights are what trials of `relay` were about.
"""

SHARE = 3
"""The first trials have one of so many rounds."""


def refine(
    workdir: str,
    budgets: Mapping[tuple[str, float], Budget],
    num_jobs: int,
    console: Console,
    path: pathlib.Path = REFINED,
) -> tuple[pd.DataFrame, list[str]]:
    """Makes all further trials, each from the teacher of A4.

    Args:
        workdir: the folder of all runs.
        budgets: of A4, see `experiments.read_budgets`.
        num_jobs: runs side by side.
        console: gets a line for each run.
        path: the CSV to write, once no trial is missing.

    Returns:
        A row a trial: method, change ("" for what `tune` chose), rounds ("part" or
        "all"), validation (percent), and whether it is taken. What failed, and where
        its log is.
    """
    tuned = trials.chosen(TUNED)
    fewer = {
        key: budget._replace(rounds=max(1, budget.rounds // SHARE))
        for key, budget in budgets.items()
    }
    short = [
        Trial(name, change)
        for name, changes in CHANGES.items()
        for change in ("", *changes)
    ]
    jobs, place = tune.planned(short, workdir, fewer, tuned)
    part, failed = trials.make(jobs, place, tune.LAST, num_jobs, console)
    whole = [] if failed else [Trial(name, "") for name in CHANGES]
    whole += [Trial(one.method, best_two(one.method, part)) for one in whole]
    # One without a gain has a trial less: its second is its first.
    jobs, place = tune.planned(whole, workdir, budgets, tuned)
    scores, more = trials.make(jobs, place, tune.LAST, num_jobs, console)
    frame = _frame(part, scores)
    if not failed + more:
        trials.write(path, frame)
    return frame, failed + more


def best_two(method: str, scores: Mapping[Trial, float]) -> str:
    """The best two changes that gained, of different fields; "" where none did."""
    before = scores[Trial(method, "")]
    gained = {
        change: scores[Trial(method, change)]
        for change in CHANGES[method]
        if scores[Trial(method, change)] > before
    }
    best: dict[str, str] = {}
    for change in sorted(gained, key=gained.__getitem__, reverse=True):
        best.setdefault(change.partition("=")[0], change)
    return " ".join(list(best.values())[:2])


def _frame(part: Mapping[Trial, float], whole: Mapping[Trial, float]) -> pd.DataFrame:
    """All trials, those of a method together; the best with all rounds are taken."""
    rows = [
        {**trial._asdict(), "rounds": rounds, "validation": score}
        for name in CHANGES
        for rounds, scores in (("part", part), ("all", whole))
        for trial, score in scores.items()
        if trial.method == name
    ]
    frame = pd.DataFrame(rows, columns=[*Trial._fields, "rounds", "validation"])
    best = frame[frame["rounds"] == "all"].groupby("method")["validation"].idxmax()
    return frame.assign(chosen=frame.index.isin(best))
