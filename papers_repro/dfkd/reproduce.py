"""Runs the experiments of this folder and prints ours beside what was published.

    python -m papers_repro.dfkd.reproduce --calibrate         # once, before A4
    python -m papers_repro.dfkd.reproduce --only A1,C1.alpha0.1
    python -m papers_repro.dfkd.reproduce --table             # from what is there
    python -m papers_repro.dfkd.reproduce --smoke             # all, tiny, in minutes

Run it again to go on where it stopped: finished runs are skipped, unfinished ones are
resumed. Every run is a process on one core. Writes `tables/<ID>.csv` and `.md`, and
`tables/all.md`. Exits with 1 if a run failed.
"""

import argparse
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from rich.console import Console

from ecogen_jax import config as config_lib
from ecogen_jax.report import runs, tables
from ecogen_jax.run import sweep
from papers_repro.dfkd import table
from papers_repro.dfkd.experiments import (
    EXPERIMENTS,
    HERE,
    Budget,
    Experiment,
    cell,
    read_budgets,
    with_starts,
)

TRAIN = HERE.parent.parent / "scripts" / "train.py"
_LONG = "A4.long."
# A smoke compiles far longer than it runs.
_FAST_COMPILING = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}


class Settings(NamedTuple):
    """How the runs are made.

    Attributes:
        workdir: the folder of all runs.
        smoke: tiny, one seed.
        budgets: of A4, see `read_budgets`.
    """

    workdir: str
    smoke: bool
    budgets: Mapping[tuple[str, float], Budget]


class Job(NamedTuple):
    """One run to make."""

    one: Experiment
    seed: int

    @property
    def name(self) -> str:
        """The experiment and the seed."""
        return f"{self.one.id} seed {self.seed}"


class FailedRunError(RuntimeError):
    """A run ended with an error, or what it starts from did."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 1 if a run failed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    console = Console()
    try:
        only = [id for id in options.only.split(",") if id]
        table.chosen(only)
        if options.calibrate:
            return _calibrate(console)
        if not options.smoke:
            return _reproduce(options, only, HERE / "tables", console)
        with tempfile.TemporaryDirectory(prefix="dfkd-smoke-") as folder:
            options.workdir = folder
            return _reproduce(options, only, pathlib.Path(folder) / "tables", console)
    except ValueError as error:
        parser.error(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="ID,ID", help="bars, or parts")
    parser.add_argument("--workdir", default="runs/dfkd", help="default: %(default)s")
    parser.add_argument(
        "--jobs", type=int, default=2, help="runs side by side (default: %(default)s)"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--smoke", action="store_true", help="into a temporary folder")
    what.add_argument("--table", action="store_true", help="run nothing")
    what.add_argument("--calibrate", action="store_true", help="write budgets.csv")
    return parser


def _calibrate(console: Console) -> int:
    from papers_repro.dfkd import calibrate  # it imports JAX, which runs do alone

    short = [one for id, one in EXPERIMENTS.items() if id.startswith("A4.")]
    chosen = [one for one in short if not one.id.startswith(_LONG)]
    pin(0)
    frame = calibrate.calibrate(chosen)
    console.print(tables.to_rich(tables.from_frame("Budgets of A4", frame)))
    return 0


def _reproduce(
    options: argparse.Namespace,
    only: Sequence[str],
    folder: pathlib.Path,
    console: Console,
) -> int:
    settings = Settings(options.workdir, options.smoke, read_budgets())
    failed = [] if options.table else run(only, settings, options.jobs, console)
    found = finished(settings)
    if not found and options.table:
        raise ValueError(f"no finished run in {settings.workdir}; leave out --table")
    shown = table.chosen(only)["id"]
    judged = {
        name: table.judged(name, found, smoke=options.smoke)
        for name, frame in table.all_bars().items()
        if frame["id"].isin(shown).any()
    }
    written = table.write(judged, folder, smoke=options.smoke)
    for name, frame in judged.items():
        rows = table.short(frame[frame["id"].isin(shown)])
        console.print(tables.to_rich(tables.from_frame(name, rows)))
    console.print(f"written to {written} and beside it", soft_wrap=True)
    for failure in failed:
        console.print(f"failed: {failure}", style="red", soft_wrap=True, markup=False)
    return int(bool(failed))


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
    asked = table.experiments(table.chosen(only))
    if settings.smoke:
        asked = [id for id in asked if EXPERIMENTS[id].in_smoke]
    first = [id for id in asked if not id.startswith(_LONG)]
    if len(first) == len(asked):
        return _run_all(jobs(first, settings), settings, num_jobs, console)
    first += ["A4.relay", *table.family("A4.relay")]
    failed = _run_all(jobs(first, settings), settings, num_jobs, console)
    best = table.best_three(finished(settings))
    console.print(f"the best on validation: {', '.join(best)}", highlight=False)
    chosen = jobs([id for id in best if id in asked], settings)
    return failed + _run_all(chosen, settings, num_jobs, console)


def jobs(ids: Sequence[str], settings: Settings) -> list[Job]:
    """Returns the runs of experiments, those that others start from first."""
    found = [
        Job(one, seed)
        for one in with_starts(ids)
        for seed in (one.seeds[:1] if settings.smoke else one.seeds)
    ]
    # A start has more seeds than one of those that start from it may need.
    needed = {(job.one.start, job.seed) for job in found}
    return [
        job for job in found if job.one.id in ids or (job.one.id, job.seed) in needed
    ]


def _run_all(
    todo: Sequence[Job], settings: Settings, num_jobs: int, console: Console
) -> list[str]:
    """Makes runs side by side, each after the one that it starts from."""
    for job in todo:  # a typo stops here, before any work
        config_lib.load(*_cell(job, settings))
    cores = itertools.count()
    made: dict[Job, Future[pathlib.Path]] = {}
    with ThreadPoolExecutor(num_jobs, initializer=lambda: pin(next(cores))) as pool:
        for job in todo:
            start = made.get(_start(job)) if job.one.start else None
            made[job] = pool.submit(_run_one, job, start, settings, console)
    errors = {job: future.exception() for job, future in made.items()}
    return [f"{job.name}: {error}" for job, error in errors.items() if error]


def _run_one(
    job: Job,
    start: Future[pathlib.Path] | None,
    settings: Settings,
    console: Console,
) -> pathlib.Path:
    """Makes a run, or finds it finished; returns its folder."""
    cell = _cell(job, settings, str(start.result()) if start else "")
    done = sweep.finished_run(cell)
    if done is not None:
        return done
    log = pathlib.Path(settings.workdir) / "logs" / f"{job.one.id}-seed{job.seed}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    with log.open("w") as file:
        subprocess.run(
            sweep.command(pathlib.Path(os.path.relpath(TRAIN)), cell),
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | (_FAST_COMPILING if settings.smoke else {}),
            check=False,
        )
    done = sweep.finished_run(cell)
    if done is None:
        raise FailedRunError(f"see {log}")
    seconds = time.perf_counter() - begin
    console.print(f"{seconds:6.0f} s  {job.name}", highlight=False)
    return done


def finished(settings: Settings) -> list[runs.Run]:
    """Reads the finished runs of all experiments: those of exactly their config."""
    folders: dict[Job, pathlib.Path] = {}
    suffix = "_smoke" if settings.smoke else ""
    for job in jobs(list(EXPERIMENTS), settings):
        if not pathlib.Path(settings.workdir, job.one.id + suffix).is_dir():
            continue
        start = folders.get(_start(job)) if job.one.start else None
        key = (job.one.distiller, job.one.budget_s)
        uncalibrated = job.one.budget_s and key not in settings.budgets
        if (job.one.start and start is None) or (uncalibrated and not settings.smoke):
            continue
        found = sweep.finished_run(_cell(job, settings, str(start or "")))
        if found is not None:
            folders[job] = found
    return [runs.read(path) for path in folders.values()]


def pin(core: int) -> None:
    """Keeps this thread, and the processes that it starts, on one core.

    Args:
        core: counted modulo the number of cores. Systems that cannot pin are left as
            they are.
    """
    if sys.platform == "linux":
        cores = sorted(os.sched_getaffinity(os.getpid()))
        os.sched_setaffinity(0, {cores[core % len(cores)]})


def _start(job: Job) -> Job:
    return Job(EXPERIMENTS[job.one.start], job.seed)


def _cell(job: Job, settings: Settings, start_from: str = "") -> sweep.Cell:
    return cell(
        job.one,
        job.seed,
        workdir=settings.workdir,
        start_from=start_from,
        smoke=settings.smoke,
        budgets=settings.budgets,
    )


if __name__ == "__main__":
    raise SystemExit(main())
