"""Runs the experiments of this folder and prints ours beside what was published.

    python -m papers_repro.dense.reproduce --only C1.alpha0.1
    python -m papers_repro.dense.reproduce --table            # from what is there
    python -m papers_repro.dense.reproduce --smoke            # all, tiny, in minutes

Run it again to go on where it stopped: finished runs are skipped, unfinished ones are
resumed. Every run is a process on one core. Writes `tables/<ID>.csv` and `.md`, and
`tables/all.md`. Exits with 1 if a run failed.
"""

import argparse
import pathlib
from collections.abc import Sequence

from rich.console import Console

from ecogen_jax.run import sweep
from papers_repro import harness, hops
from papers_repro.dense.experiments import EXPERIMENTS
from papers_repro.dense.table import PAPER
from papers_repro.harness import Job, Place

IN_SMOKE = [id for id, one in EXPERIMENTS.items() if one.in_smoke]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 1 if a run failed."""
    options = harness.parser(__doc__, "runs/dense")
    return harness.command(options, arguments, PAPER, _reproduce, IN_SMOKE)


def _reproduce(
    options: argparse.Namespace, only: list[str], folder: pathlib.Path, console: Console
) -> int:
    where, smoke, failed = place(options.workdir, options.smoke), options.smoke, []
    if not options.table:
        asked = PAPER.experiments(PAPER.chosen(only))
        asked = [id for id in asked if id in IN_SMOKE or not smoke]
        todo = hops.jobs(asked, EXPERIMENTS, smoke=smoke)
        failed = harness.make(todo, where, options.jobs, console)
    found = harness.finished(hops.jobs(EXPERIMENTS, EXPERIMENTS, smoke=smoke), where)
    if not found and options.table:
        raise ValueError(f"no finished run in {options.workdir}; leave out --table")
    return hops.show(
        PAPER,
        lambda name: hops.judged(PAPER, name, found, smoke=smoke),
        options,
        only,
        folder,
        failed,
        console,
    )


def place(workdir: str, smoke: bool) -> Place:
    """Where the runs are made, and what each of them is."""

    def cell_of(job: Job, start: str) -> sweep.Cell:
        one = EXPERIMENTS[job.experiment]
        return hops.cell(one, job.seed, workdir=workdir, start_from=start, smoke=smoke)

    return Place(workdir, smoke, cell_of)


if __name__ == "__main__":
    raise SystemExit(main())
