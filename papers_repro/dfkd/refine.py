"""Further trials of A4 for those that `relay` is compared with.

`relay` had nine trials before the four of `tune`. The others get as many: first what
`tune` chose and `CHANGES` of it, one at a time, with a third of the rounds; then, with
all rounds, the best two of those that gained, together. These are taken if they end
higher on validation than what `tune` chose, run again. One without a gain has a trial
less.
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

PARTS = 3
"""The rounds of a budget are divided by this for the first trials."""


def refine(
    workdir: str,
    budgets: Mapping[tuple[str, float], Budget],
    num_jobs: int,
    console: Console,
    path: pathlib.Path = REFINED,
) -> tuple[pd.DataFrame, list[str]]:
    """Makes all further trials; see `tune.tune` for the arguments.

    Returns:
        A row a trial: method, what `tune` chose (before), change of that, rounds
        ("part" or "all"), validation (percent), and whether it is taken. What failed,
        and where its log is.

    Raises:
        ValueError: `tune` has not chosen for all of them.
    """
    tuned = _chosen()

    def made(
        todo: list[Trial], sizes: Mapping[tuple[str, float], Budget], rounds: str
    ) -> tuple[dict[Trial, float], list[str]]:
        whole = {one: _joined(one, tuned) for one in todo}
        jobs, place = tune.planned(whole.values(), workdir, sizes, rounds)
        scores, failed = trials.make(jobs, place, tune.LAST, num_jobs, console)
        return {one: scores[whole[one]] for one in todo if whole[one] in scores}, failed

    part, failed = made(_first(), _fewer(budgets), "part")
    longer = [] if failed else [Trial(name, "") for name in CHANGES]
    # Without a gain, this is the same trial again, which is made once.
    longer += [Trial(one.method, best_two(one.method, part)) for one in longer]
    scores, more = made(longer, budgets, "all")
    frame = _frame(part, scores, tuned)
    if not failed + more:
        trials.write(path, frame)
    return frame, failed + more


def _chosen() -> dict[str, str]:
    """What `tune` chose, or a ValueError if it has not for all."""
    tuned = trials.chosen(TUNED)
    missing = [name for name in CHANGES if name not in tuned]
    if missing:
        raise ValueError(
            f"{TUNED} has no setting of {', '.join(missing)}; run with --tune first"
        )
    return tuned


def _first() -> list[Trial]:
    """What is tried first: what was chosen before, and each change of it."""
    return [
        Trial(name, change)
        for name, changes in CHANGES.items()
        for change in ("", *changes)
    ]


def _fewer(
    budgets: Mapping[tuple[str, float], Budget],
) -> dict[tuple[str, float], Budget]:
    """Budgets with the rounds of the first trials."""
    return {
        key: budget._replace(rounds=max(1, budget.rounds // PARTS))
        for key, budget in budgets.items()
    }


def _joined(trial: Trial, tuned: Mapping[str, str]) -> Trial:
    """A trial with what was chosen before."""
    change = trials.joined(tuned[trial.method], trial.change)
    return trial._replace(change=change)


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


def _frame(
    part: Mapping[Trial, float], whole: Mapping[Trial, float], tuned: Mapping[str, str]
) -> pd.DataFrame:
    """All trials, those of a method together; the best with all rounds are taken."""
    rows = [
        (name, tuned[name], trial.change, rounds, score)
        for name in CHANGES
        for rounds, scores in (("part", part), ("all", whole))
        for trial, score in scores.items()
        if trial.method == name
    ]
    columns = ["method", "before", "change", "rounds", "validation"]
    frame = pd.DataFrame(rows, columns=columns)
    best = frame[frame["rounds"] == "all"].groupby("method")["validation"].idxmax()
    return frame.assign(chosen=frame.index.isin(best))
