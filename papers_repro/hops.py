"""Experiments of hops: their runs, and the curves beside what a hop taught.

An experiment that starts from another takes the first senders from that one's run of
the same seed, so that nothing is trained twice and every method has the same teachers.
"""

import argparse
import fnmatch
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from rich.console import Console

from ecogen_jax.report import files, verdicts
from ecogen_jax.report.runs import Run
from ecogen_jax.run.sweep import Cell
from papers_repro import harness
from papers_repro.harness import Job
from papers_repro.paper import SMOKE_SUFFIX, Paper

CURVE = {
    "mean_over_training": "mean_over_training_validation",
    "peak": "peak_validation",
    "last": "last_validation",
}
"""Columns on validation, and where a hop of the summary has them."""

TRIALS = pathlib.Path(__file__).parent / "dfkd" / "trials.csv"
"""Trials on validation images behind the settings of experiments, see `num_trials`."""

NO_HOP = "protocol.route=()"
"""Of a run that only trains the first senders."""

_LAST_HOP = "hops.-1."


class Experiment(NamedTuple):
    """Runs that differ in the seed alone.

    Attributes:
        id: names the folder of the runs.
        config: stem of a file in `configs/hops/`.
        seeds: one run each; a seed is also that of the partition.
        overrides: `field=value`.
        dataset: what it runs on.
        start: id of the experiment whose runs hold the first senders, or "".
        budget_s: seconds that the first hop gets, with the settings that were chosen
            for its distiller (see `dfkd`); 0 for the config's.
        in_smoke: False where only a number sets it apart from another in the smoke, and
            where its own config has a smoke that takes minutes to compile.
        needs_gpu: True where it would take days on CPU cores.
    """

    id: str
    config: str
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    overrides: tuple[str, ...] = ()
    dataset: str = "mnist"
    start: str = ""
    budget_s: float = 0.0
    in_smoke: bool = True
    needs_gpu: bool = False

    @property
    def distiller(self) -> str:
        """What A4 calls its method: the last part of the id."""
        return self.id.rpartition(".")[2]

    def config_path(self, smoke: bool = False) -> str:
        """The config file, with its argument."""
        return f"configs/hops/{self.config}.py" + (":smoke" if smoke else "")


Experiments = Mapping[str, Experiment]
"""By id; one that is started from comes before those that start from it."""


def cell(
    one: Experiment,
    seed: int,
    *,
    workdir: str,
    start_from: str = "",
    smoke: bool = False,
    size: Iterable[str] = (),
) -> Cell:
    """Returns the config and the overrides of one run.

    Args:
        one: the experiment.
        seed: of the run.
        workdir: the folder of all runs.
        start_from: the run folder with the first senders.
        smoke: tiny, on generated data: neither dataset nor size is set.
        size: `field=value`, not in a smoke.
    """
    overrides = [f"experiment={one.id}{'_smoke' if smoke else ''}", f"seed={seed}"]
    # One device is one core, so that runs side by side do not slow each other down.
    overrides += ["mesh.num_devices=1", f"run.workdir={workdir}", *one.overrides]
    if not smoke:
        overrides += [f"data.name={one.dataset}", *size]
    if start_from:
        overrides.append(f"protocol.start_from={start_from}")
    return Cell(one.config_path(smoke), tuple(overrides))


def jobs(ids: Iterable[str], every: Experiments, *, smoke: bool) -> list[Job]:
    """Returns the runs of experiments, those that others start from first.

    Args:
        ids: of the experiments.
        every: all experiments of the paper.
        smoke: whether each has one seed.
    """
    asked = set(ids)
    starts = {every[id].start for id in asked} - {""}
    found = [
        Job(one.id, seed, one.start)
        for one in every.values()
        if one.id in asked | starts
        for seed in (one.seeds[:1] if smoke else one.seeds)
    ]
    # A start has more seeds than one of those that start from it may need.
    needed = {(job.start, job.seed) for job in found}
    return [
        job
        for job in found
        if job.experiment in asked or (job.experiment, job.seed) in needed
    ]


def judged(
    paper: Paper, name: str, found: Sequence[Run], *, smoke: bool = False
) -> pd.DataFrame:
    """Fills in what the runs gave.

    Args:
        paper: whose bars.
        name: of the table, such as "A1".
        found: finished runs.
        smoke: whether they are those of the smoke, on generated data.

    Returns:
        A bar a row: the columns of `verdicts.judge`, then `CURVE`: means over seeds, on
        validation, where a row is about what a hop taught.
    """
    frame = paper.asked(name, found, smoke=smoke)
    table = paper.judged(frame, found)
    about = (frame["expression"] == f"{_LAST_HOP}test") & frame["against"].isna()
    for column, place in CURVE.items():
        curve = verdicts.judge(frame[about].assign(expression=_LAST_HOP + place), found)
        table.loc[about, column] = curve["ours_mean"].to_numpy(dtype=float)
    return table


def num_trials(experiment: str, logged: pd.DataFrame) -> str:
    """How many trials the settings of an experiment were chosen by.

    Args:
        experiment: its id.
        logged: `TRIALS` as a frame: the columns experiments (patterns of ids), trials,
            and whether these are about so many.

    Returns:
        A number, "~" before one that is about so; "" where none is logged.
    """
    its = [
        any(fnmatch.fnmatchcase(experiment, pattern) for pattern in patterns.split())
        for patterns in logged["experiments"]
    ]
    if not any(its):
        return ""
    lines = logged[its]
    return ("~" if lines["about"].any() else "") + str(lines["trials"].sum())


def with_trials(table: pd.DataFrame) -> pd.DataFrame:
    """Adds `trials` to a judged table, where a row is about what a tuned hop taught."""
    logged = pd.read_csv(TRIALS)

    found = [_both(row, logged) for row in table.to_dict("records")]
    return table.assign(trials=pd.Series(found, table.index, dtype="str"))


def _both(row: Mapping[Any, Any], logged: pd.DataFrame) -> str | None:
    """The trials of a row's experiment and, where it is a difference, of the other."""
    if not row["expression"].startswith((f"{_LAST_HOP}test", "phases.-1.")):
        return None
    ids = [row["experiment"]]
    if isinstance(row["against"], str):
        ids.append(row["against"].partition(" ")[2])
    sides = [num_trials(id.removesuffix(SMOKE_SUFFIX), logged) for id in ids]
    return ", ".join(filter(None, sides)) if sides[0] else None


def show(
    paper: Paper,
    judge: Callable[[str], pd.DataFrame],
    options: argparse.Namespace,
    only: Sequence[str],
    folder: pathlib.Path,
    failed: Sequence[str],
    console: Console,
) -> int:
    """Writes and prints the tables of the chosen bars; returns the exit code.

    Args:
        paper: whose tables.
        judge: fills in a table, given its name.
        options: of the command line, see `harness.parser`.
        only: ids of bars, or their first parts; none for all.
        folder: of the tables; rows that it has of runs that are not at hand are kept.
        failed: what failed, and where its log is.
        console: gets the tables.
    """
    names = harness.asked_tables(paper, only)
    tables = {
        name: with_trials(paper.kept(name, judge(name), folder)) for name in names
    }
    with files.accessing(folder):
        written = paper.write(tables, folder, smoke=options.smoke)
    return harness.tell(
        tables, paper, only, written, failed, console, smoke=options.smoke
    )
