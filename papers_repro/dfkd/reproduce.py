"""Runs the experiments of this folder and prints ours beside what was published.

    python -m papers_repro.dfkd.reproduce --calibrate         # once, before A4
    python -m papers_repro.dfkd.reproduce --tune              # then
    python -m papers_repro.dfkd.reproduce --refine            # then
    python -m papers_repro.dfkd.reproduce --calibrate         # as the trials chose
    python -m papers_repro.dfkd.reproduce --only A1,D2
    python -m papers_repro.dfkd.reproduce --table             # from what is there
    python -m papers_repro.dfkd.reproduce --smoke             # all, tiny, in minutes

Run it again to go on where it stopped: finished runs are skipped, unfinished ones are
resumed. Every run is a process on one core. Writes `tables/<ID>.csv` and `.md`, and
`tables/all.md`. Exits with 1 if a run failed.
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.console import Console

from ecogen_jax.report import runs, tables
from ecogen_jax.run import sweep
from papers_repro import harness, hops
from papers_repro.dfkd import refine, table, tune
from papers_repro.dfkd.experiments import (
    EXPERIMENTS,
    SHORT_S,
    Budget,
    cell,
    read_budgets,
    read_tuned,
)
from papers_repro.harness import Job


class Settings(NamedTuple):
    """How the runs are made.

    Attributes:
        workdir: the folder of all runs.
        smoke: tiny, one seed.
        budgets: of A4, see `read_budgets`.
        tuned: settings of A4, see `experiments.read_tuned`.
    """

    workdir: str
    smoke: bool
    budgets: Mapping[tuple[str, float], Budget]
    tuned: Mapping[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 1 if a run failed."""
    options = harness.parser(
        __doc__,
        "runs/dfkd",
        calibrate="write budgets.csv",
        tune="write tuned.csv",
        refine="write refined.csv",
    )
    in_smoke = [id for id, one in EXPERIMENTS.items() if one.in_smoke]
    return harness.command(options, arguments, table.PAPER, _reproduce, in_smoke)


def _calibrate(console: Console) -> int:
    from papers_repro.dfkd import calibrate  # it imports JAX, which runs do alone

    short = [one for one in EXPERIMENTS.values() if one.budget_s == SHORT_S]
    harness.pin(0)
    frame = calibrate.calibrate(short, read_tuned())
    console.print(tables.to_rich(tables.from_frame("Budgets of A4", frame)))
    return 0


def _reproduce(
    options: argparse.Namespace, only: list[str], folder: pathlib.Path, console: Console
) -> int:
    if options.calibrate:
        return _calibrate(console)
    budgets = read_budgets()
    if options.tune:
        made, failed = tune.tune(options.workdir, budgets, options.jobs, console)
        console.print(tables.to_rich(tables.from_frame("Trials of A4", made)))
        return harness.told(failed, console)
    if options.refine:
        made, failed = refine.refine(options.workdir, budgets, options.jobs, console)
        console.print(tables.to_rich(tables.from_frame("Further trials of A4", made)))
        return harness.told(failed, console)
    settings = Settings(options.workdir, options.smoke, budgets, read_tuned())
    failed = [] if options.table else run(only, settings, options.jobs, console)
    found = finished(settings)
    if not found and options.table:
        raise ValueError(f"no finished run in {settings.workdir}; leave out --table")
    return hops.show(
        table.PAPER,
        lambda name: table.judged(name, found, smoke=options.smoke),
        options,
        only,
        folder,
        failed,
        console,
    )


def run(
    only: Sequence[str], settings: Settings, num_jobs: int, console: Console
) -> list[str]:
    """Makes the runs that bars need, and what those start from.

    Args:
        only: ids of bars, or their first parts; none for all.
        settings: of the runs.
        num_jobs: runs side by side.
        console: gets a line for each run.

    Returns:
        What failed, and where its log is.
    """
    place = _place(settings)
    asked = table.PAPER.experiments(table.PAPER.chosen(only))
    if settings.smoke:
        asked = [id for id in asked if EXPERIMENTS[id].in_smoke]
    best = table.best_three()
    todo = [id for id in asked if not id.startswith(table.LONG) or id in best]
    if not only:  # who names one that needs a GPU is taken to have it
        for id in [id for id in todo if EXPERIMENTS[id].needs_gpu]:
            console.print(f"left out, needs a GPU: {id} (--only {id} makes it)")
            todo.remove(id)
    runs_ = hops.jobs(todo, EXPERIMENTS, smoke=settings.smoke)
    return harness.make(runs_, place, num_jobs, console)


def finished(settings: Settings) -> list[runs.Run]:
    """Reads the finished runs of all experiments: those of exactly their config."""
    todo = [
        job
        for job in hops.jobs(EXPERIMENTS, EXPERIMENTS, smoke=settings.smoke)
        if settings.smoke or _is_sized(job, settings)
    ]
    return harness.finished(todo, _place(settings))


def _is_sized(job: Job, settings: Settings) -> bool:
    one = EXPERIMENTS[job.experiment]
    return not one.budget_s or (
        (one.distiller, one.budget_s) in settings.budgets
        and one.distiller in settings.tuned
    )


def _place(settings: Settings) -> harness.Place:
    def cell_of(job: Job, start: str) -> sweep.Cell:
        return cell(
            EXPERIMENTS[job.experiment],
            job.seed,
            workdir=settings.workdir,
            start_from=start,
            smoke=settings.smoke,
            budgets=settings.budgets,
            tuned=settings.tuned,
        )

    return harness.Place(settings.workdir, settings.smoke, cell_of)


if __name__ == "__main__":
    raise SystemExit(main())
