"""The tables: the bars of this folder, the claims beside them, and what runs gave."""

import pathlib
from collections.abc import Sequence

import pandas as pd

from ecogen_jax.report.runs import Run
from papers_repro import hops, trials
from papers_repro.dfkd.experiments import DISTILLERS, EXPERIMENTS, HERE, REFINED, TUNED
from papers_repro.hops import CURVE
from papers_repro.paper import Paper

LONG = "A4.long."
"""What ids of A4 with the larger budget begin with."""


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
    """Fills in what the runs gave, see `hops.judged`."""
    table = hops.judged(PAPER, name, found, smoke=smoke)
    # Two of the others have the larger budget, and no row is there for the rest.
    idle = (table["verdict"] == "not run") & table["id"].str.startswith(LONG)
    return table[~idle | table["experiment"].isin(best_three())]


def best_three(
    tuned: pathlib.Path = TUNED, refined: pathlib.Path = REFINED
) -> list[str]:
    """The experiments of A4 with the larger budget: relay, and the best two others.

    Args:
        tuned: the CSV of the trials, which are runs with the smaller budget.
        refined: that of the further trials.

    Returns:
        Ids; the choice is made by the last accuracy on validation.
    """
    scores = trials.validation(tuned) | trials.validation(refined)
    others = [name for name in DISTILLERS if name in scores]
    best = sorted(others, key=scores.__getitem__, reverse=True)[:2]
    return [f"{LONG}{name}" for name in ("relay", *best)]
