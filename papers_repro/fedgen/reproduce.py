"""Runs the experiments of this folder and prints ours beside what was published.

    python -m papers_repro.fedgen.reproduce --tune            # once, before B4
    python -m papers_repro.fedgen.reproduce --only B1,B3
    python -m papers_repro.fedgen.reproduce --only B4.fashion_mnist.alpha0.1
    python -m papers_repro.fedgen.reproduce --table           # from what is there
    python -m papers_repro.fedgen.reproduce --smoke           # all, tiny, in minutes

Run it again to go on where it stopped: finished runs are skipped, unfinished ones are
resumed. Every run is a process on one core. Writes `tables/<ID>.csv` and `.md`,
`tables/all.md` and, for B5, a plot. Exits with 1 if a run failed.
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence

from rich.console import Console

from ecogen_jax.report import files, tables
from ecogen_jax.run import sweep
from papers_repro import harness, trials
from papers_repro.fedgen import curves, plot, table, tune
from papers_repro.fedgen.experiments import EXPERIMENTS, TUNED, cell, reference
from papers_repro.harness import Job, Place


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 1 if a run failed."""
    options = harness.parser(__doc__, "runs/fedgen", tune="write tuned.csv")
    in_smoke = [id for id, one in EXPERIMENTS.items() if one.in_smoke]
    return harness.command(options, arguments, table.PAPER, _reproduce, in_smoke)


def _reproduce(
    options: argparse.Namespace, only: list[str], folder: pathlib.Path, console: Console
) -> int:
    if options.tune:
        made, failed = tune.tune(options.workdir, options.jobs, console)
        console.print(tables.to_rich(tables.from_frame("Trials of B4", made)))
        return harness.told(failed, console)
    tuned = trials.chosen(TUNED)
    where, failed = place(options.workdir, options.smoke, tuned), []
    if not options.table:
        todo = jobs(needed(only), smoke=options.smoke)
        failed = harness.make(todo, where, options.jobs, console)
    ready = [
        id
        for id, one in EXPERIMENTS.items()
        if options.smoke or one.method in {"", *tuned}
    ]
    found = harness.finished(jobs(ready, smoke=options.smoke), where)
    if not found and options.table:
        raise ValueError(f"no finished run in {options.workdir}; leave out --table")
    found = curves.enriched(found)
    names = harness.asked_tables(table.PAPER, only)
    judged = {
        name: table.PAPER.kept(
            name, table.judged(name, found, smoke=options.smoke), folder
        )
        for name in names
    }
    with files.accessing(folder):
        written = table.PAPER.write(
            judged, folder, smoke=options.smoke, printers=table.PRINTERS
        )
        if table.COSTS in names:
            plot.write(found, folder)
    return harness.tell(
        judged, table.PAPER, only, written, failed, console, smoke=options.smoke
    )


def needed(only: Sequence[str]) -> list[str]:
    """Ids of the experiments that bars need, with those that set their budgets."""
    asked = table.PAPER.experiments(table.PAPER.chosen(only))
    return asked + [reference(id) for id in asked if id.startswith("B4.")]


def jobs(ids: Sequence[str], *, smoke: bool) -> list[Job]:
    """Returns the runs of experiments; a smoke has one seed, and not all of them."""
    return [
        Job(one.id, seed)
        for one in EXPERIMENTS.values()
        if one.id in ids and (one.in_smoke or not smoke)
        for seed in (one.seeds[:1] if smoke else one.seeds)
    ]


def place(workdir: str, smoke: bool, tuned: Mapping[str, str]) -> Place:
    """Where the runs are made, and what each of them is."""

    def cell_of(job: Job, start: str) -> sweep.Cell:
        del start
        one = EXPERIMENTS[job.experiment]
        return cell(one, job.seed, workdir=workdir, smoke=smoke, tuned=tuned)

    return Place(workdir, smoke, cell_of)


if __name__ == "__main__":
    raise SystemExit(main())
