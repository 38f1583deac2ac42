"""The tables: the bars of this folder, the claims beside them, and what runs gave."""

from collections.abc import Sequence

import pandas as pd

from ecogen_jax.report import bars
from ecogen_jax.report.runs import Run
from papers_repro.dfkd.experiments import DISTILLERS, EXPERIMENTS, HERE
from papers_repro.paper import Paper, mean

CURVE = {
    "mean_over_training": "mean_over_training_validation",
    "peak": "peak_validation",
    "last": "last_validation",
}
"""Columns on validation, and where a hop of the summary has them."""

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
        A bar a row: the columns of `bars.judge`, then `CURVE`: means over seeds, on
        validation, where a row is about what a hop taught.
    """
    frame = PAPER.asked(name, found, smoke=smoke)
    table = PAPER.judged(frame, found)
    about = (frame["expression"] == f"{_LAST_HOP}test") & frame["against"].isna()
    for column, place in CURVE.items():
        curve = bars.judge(frame[about].assign(expression=_LAST_HOP + place), found)
        table.loc[about, column] = curve["ours_mean"].to_numpy(dtype=float)
    # Which two are the best of the others is known once all have run.
    idle = (table["verdict"] == "not run") & ~table["experiment"].str.contains("relay")
    return table[~(idle & table["id"].str.startswith("A4.long."))]


def best_three(found: Sequence[Run]) -> list[str]:
    """The experiments of A4 with the larger budget: relay, and the best two others.

    Args:
        found: finished runs, among them those of the smaller budget.

    Returns:
        Ids; the choice is made by the last accuracy on validation.
    """
    last = _LAST_HOP + CURVE["last"]
    scores = {
        name: score
        for name in DISTILLERS
        if (score := mean(found, f"A4.{name}", last)) is not None
    }
    best = sorted(scores, key=scores.__getitem__, reverse=True)[:2]
    return [f"A4.long.{name}" for name in ("relay", *best)]
