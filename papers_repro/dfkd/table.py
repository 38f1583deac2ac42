"""The tables: the bars of this folder, the claims beside them, and what runs gave."""

import pathlib
from collections.abc import Sequence

import pandas as pd

from ecogen_jax.report import verdicts
from ecogen_jax.report.runs import Run
from papers_repro import trials
from papers_repro.dfkd.experiments import DISTILLERS, EXPERIMENTS, HERE, TUNED
from papers_repro.paper import Paper

CURVE = {
    "mean_over_training": "mean_over_training_validation",
    "peak": "peak_validation",
    "last": "last_validation",
}
"""Columns on validation, and where a hop of the summary has them."""

LONG = "A4.long."
"""What ids of A4 with the larger budget begin with."""

_LAST_HOP = "hops.-1."


def family(id: str) -> list[str]:
    """Experiments of A4 that one is compared with: the other distillers, alike."""
    prefix = id.rpartition(".")[0]
    return [f"{prefix}.{name}" for name in DISTILLERS]


PAPER = Paper(
    folder=HERE,
    title="Data-free hops: ours beside what was published",
    command="python -m papers_repro.dfkd.reproduce",
    seeds={id: one.seeds for id, one in EXPERIMENTS.items()},
    family=family,
    columns={name: name.replace("_", " ") for name in CURVE},
)


def judged(name: str, found: Sequence[Run], *, smoke: bool = False) -> pd.DataFrame:
    """Fills in what the runs gave.

    Args:
        name: of the table, such as "A1".
        found: finished runs.
        smoke: whether they are those of the smoke, on generated data.

    Returns:
        A bar a row: the columns of `verdicts.judge`, then `CURVE`: means over seeds, on
        validation, where a row is about what a hop taught.
    """
    frame = PAPER.asked(name, found, smoke=smoke)
    table = PAPER.judged(frame, found)
    about = (frame["expression"] == f"{_LAST_HOP}test") & frame["against"].isna()
    for column, place in CURVE.items():
        curve = verdicts.judge(frame[about].assign(expression=_LAST_HOP + place), found)
        table.loc[about, column] = curve["ours_mean"].to_numpy(dtype=float)
    # Two of the others have the larger budget, and no row is there for the rest.
    idle = (table["verdict"] == "not run") & table["id"].str.startswith(LONG)
    return table[~idle | table["experiment"].isin(best_three())]


def best_three(tuned: pathlib.Path = TUNED) -> list[str]:
    """The experiments of A4 with the larger budget: relay, and the best two others.

    Args:
        tuned: the CSV of the trials, which are runs with the smaller budget.

    Returns:
        Ids; the choice is made by the last accuracy on validation.
    """
    scores = trials.validation(tuned)
    others = [name for name in DISTILLERS if name in scores]
    best = sorted(others, key=scores.__getitem__, reverse=True)[:2]
    return [f"{LONG}{name}" for name in ("relay", *best)]
