"""Makes the runs of a paper's experiments, and runs its command line.

Every run is a process on one core. Finished runs are found again and skipped,
unfinished ones are resumed; a run that starts from another waits for it.
"""

import argparse
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import pandas as pd
from rich.console import Console

from ecogen_jax import config as config_lib
from ecogen_jax.report import files, runs, tables
from ecogen_jax.run import sweep
from ecogen_jax.run.command import positive, sigterm_as_ctrl_c
from papers_repro.paper import SMOKE, Paper

TRAIN = pathlib.Path(__file__).parent.parent / "scripts" / "train.py"
# A smoke compiles far longer than it runs.
_FAST_COMPILING = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}


class Job(NamedTuple):
    """One run to make.

    Attributes:
        experiment: its id.
        seed: of the run.
        start: id of the experiment whose run of the same seed it starts from, or "".
    """

    experiment: str
    seed: int
    start: str = ""

    @property
    def name(self) -> str:
        """The experiment and the seed."""
        return f"{self.experiment} seed {self.seed}"


class Place(NamedTuple):
    """Where runs are made, and what each of them is.

    Attributes:
        workdir: the folder of all runs.
        smoke: whether they are tiny, on generated data.
        cell: `cell(job, start)`: config and overrides of a run, given the folder of the
            run that it starts from, or "".
    """

    workdir: str
    smoke: bool
    cell: Callable[[Job, str], sweep.Cell]


class FailedRunError(RuntimeError):
    """A run ended with an error, or what it starts from did."""


class _Runs(NamedTuple):
    """The processes under way, and whether they are to end."""

    running: set[subprocess.Popen[bytes]]
    stopping: threading.Event

    def stop(self) -> None:
        """Ends those under way; one that begins meanwhile ends itself."""
        self.stopping.set()
        for process in tuple(self.running):
            process.terminate()


def make(
    todo: Sequence[Job], place: Place, num_jobs: int, console: Console
) -> list[str]:
    """Makes runs side by side, each after the one that it starts from.

    Args:
        todo: the runs, those that others start from first.
        place: where.
        num_jobs: runs side by side.
        console: gets a line for each run.

    Returns:
        What failed, and where its log is.

    Raises:
        KeyboardInterrupt: as it came; the runs under way were stopped, and none of the
            others was begun.
    """
    for job in todo:  # a typo stops here, before any work
        config_lib.load(*place.cell(job, ""))
    cores = itertools.count()
    made: dict[tuple[str, int], Future[pathlib.Path]] = {}
    under_way = _Runs(set(), threading.Event())
    with ThreadPoolExecutor(num_jobs, initializer=lambda: pin(next(cores))) as pool:
        try:
            for job in todo:
                start = made.get((job.start, job.seed))
                made[job.experiment, job.seed] = pool.submit(
                    _make_one, job, start, place, console, under_way
                )
            errors = [made[job.experiment, job.seed].exception() for job in todo]
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            under_way.stop()
            raise
    return [
        f"{job.name}: {error}"
        for job, error in zip(todo, errors, strict=True)
        if error is not None
    ]


def _make_one(
    job: Job,
    start: Future[pathlib.Path] | None,
    place: Place,
    console: Console,
    under_way: _Runs,
) -> pathlib.Path:
    """Makes a run, or finds it finished; returns its folder."""
    cell = place.cell(job, str(start.result()) if start else "")
    done = sweep.finished_run(cell)
    if done is not None:
        return done
    if under_way.stopping.is_set():
        raise FailedRunError("stopped")
    log = pathlib.Path(place.workdir) / "logs" / f"{job.experiment}-seed{job.seed}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    with (
        log.open("w") as file,
        subprocess.Popen(
            sweep.command(pathlib.Path(os.path.relpath(TRAIN)), cell),
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | (_FAST_COMPILING if place.smoke else {}),
        ) as process,
    ):
        under_way.running.add(process)
        if under_way.stopping.is_set():  # since it was asked
            process.terminate()
        process.wait()
        under_way.running.discard(process)
    done = sweep.finished_run(cell)
    if done is None:
        raise FailedRunError(f"see {log}")
    seconds = time.perf_counter() - begin
    console.print(f"{seconds:6.0f} s  {job.name}", highlight=False)
    return done


def finished(todo: Iterable[Job], place: Place) -> list[runs.Run]:
    """Reads those of the runs that are finished: of exactly their config."""
    folders: dict[tuple[str, int], pathlib.Path] = {}
    suffix = "_smoke" if place.smoke else ""
    for job in todo:
        start = folders.get((job.start, job.seed))
        if job.start and start is None:
            continue
        if not pathlib.Path(place.workdir, job.experiment + suffix).is_dir():
            continue
        found = sweep.finished_run(place.cell(job, str(start or "")))
        if found is not None:
            folders[job.experiment, job.seed] = found
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


Reproduce = Callable[[argparse.Namespace, list[str], pathlib.Path, Console], int]
"""`reproduce(options, only, folder, console)`: makes runs, writes tables; exit code."""


def parser(doc: str | None, workdir: str, **others: str) -> argparse.ArgumentParser:
    """The options that all papers have.

    Args:
        doc: what the command does.
        workdir: the default one.
        **others: flags of this paper that exclude those for what to do, and their help;
            none of them can be done in part, by `--only`.
    """
    found = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument(
        "--only",
        default="",
        metavar="ID,ID",
        help="bars, parts of their ids, or tables",
    )
    found.add_argument(
        "--workdir",
        type=os.path.expanduser,  # a shell leaves the ~ of --workdir=~/runs
        default=workdir,
        help="default: %(default)s",
    )
    found.add_argument(
        "--jobs",
        type=positive,
        default=2,
        help="runs side by side (default: %(default)s)",
    )
    what = found.add_mutually_exclusive_group()
    what.add_argument("--smoke", action="store_true", help="into a temporary folder")
    what.add_argument("--table", action="store_true", help="run nothing")
    for name, help_ in others.items():
        what.add_argument(f"--{name}", action="store_true", help=help_)
    found.set_defaults(never_in_part=tuple(others))
    return found


def command(
    options_of: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    paper: Paper,
    reproduce: Reproduce,
    in_smoke: Collection[str],
) -> int:
    """Runs a paper's command line; a smoke goes to a folder that is thrown away.

    Args:
        options_of: from `parser`.
        arguments: of the command line; None for those of the process.
        paper: whose bars `--only` chooses from.
        reproduce: what to do; an OSError and a ValueError are told as wrong arguments.
        in_smoke: ids of the experiments that a smoke makes.

    Returns:
        The exit status: that of `reproduce`, or 130 after Ctrl-C and after a SIGTERM,
        which stops the runs alike.
    """
    options, console = options_of.parse_args(arguments), Console()
    try:
        _refuse_part(options)
        only = [id for id in options.only.split(",") if id]
        paper.chosen(only)
        if not options.smoke:
            folder = paper.folder / "tables"
            files.check_folder(folder)  # before hours of runs
            with sigterm_as_ctrl_c():
                return reproduce(options, only, folder, console)
        _refuse_idle(paper, only, in_smoke)
        name = f"{paper.folder.name}-smoke-"
        with sigterm_as_ctrl_c(), tempfile.TemporaryDirectory(prefix=name) as made:
            options.workdir = made
            return reproduce(options, only, pathlib.Path(made) / "tables", console)
    except (OSError, ValueError) as error:
        options_of.error(str(error))
    except KeyboardInterrupt:
        kept = "" if options.smoke else "; finished runs are not made again"
        Console(stderr=True).print(f"stopped{kept}")
        return 128 + signal.SIGINT


def _refuse_part(options: argparse.Namespace) -> None:
    """Refuses `--only` beside a flag whose work it does not limit.

    Raises:
        ValueError: both are given.
    """
    for flag in options.never_in_part:
        if options.only and getattr(options, flag):
            raise ValueError(
                f"--only is {options.only!r}, but --{flag} cannot be done in part; "
                "leave out --only"
            )


def _refuse_idle(paper: Paper, only: Iterable[str], in_smoke: Collection[str]) -> None:
    """Refuses a smoke of what it does not make.

    Raises:
        ValueError: the smoke fills in none of the bars that an id stands for.
    """
    bars = paper.chosen()
    alone = [bars.iloc[[place]] for place in range(len(bars))]
    filled = [set(paper.experiments(bar)) <= set(in_smoke) for bar in alone]
    made = set(bars["id"][filled])
    for id in only:
        if made.isdisjoint(paper.chosen([id])["id"]):
            known = ", ".join(_parts(bars["id"], made))
            raise ValueError(
                f"--only has {id!r}, of which --smoke runs nothing; it runs {known}"
            )


def _parts(ids: Iterable[str], made: Collection[str]) -> list[str]:
    """The shortest first parts of ids that stand for nothing but what is made."""
    every = {id: id.split(".") for id in ids}
    heads = {
        id: [".".join(words[:count]) for count in range(1, len(words) + 1)]
        for id, words in every.items()
    }
    others = {head for id in every if id not in made for head in heads[id]}
    found = [
        next((head for head in heads[id] if head not in others), id)
        for id in every
        if id in made
    ]
    return list(dict.fromkeys(found))


def asked_tables(paper: Paper, only: Sequence[str]) -> list[str]:
    """Names of the tables that have one of the chosen bars."""
    shown = paper.chosen(only)["id"]
    return [name for name, frame in paper.bars.items() if frame["id"].isin(shown).any()]


def tell(
    judged: Mapping[str, pd.DataFrame],
    paper: Paper,
    only: Sequence[str],
    written: pathlib.Path,
    failed: Sequence[str],
    console: Console,
    *,
    smoke: bool,
) -> int:
    """Prints the chosen rows of tables, and what failed; returns the exit code."""
    shown = paper.chosen(only)["id"]
    if smoke:
        console.print(SMOKE, soft_wrap=True)
    for name, frame in judged.items():
        asked = frame[frame["id"].isin(shown)]
        rows = paper.short(_unjudged(asked) if smoke else asked)
        console.print(tables.to_rich(tables.from_frame(name, rows)))
    line = f"written to {written} and beside it"
    console.print(line, soft_wrap=True, markup=False)
    return told(failed, console)


def _unjudged(table: pd.DataFrame) -> pd.DataFrame:
    """Blanks what numbers that show nothing met or missed; `not run` stays."""
    blank = dict.fromkeys(("met", "missed"), tables.BLANK)
    return table.assign(verdict=table["verdict"].replace(blank))


def told(failed: Sequence[str], console: Console) -> int:
    """Prints what failed; returns the exit code."""
    for failure in failed:
        console.print(f"failed: {failure}", style="red", soft_wrap=True, markup=False)
    return int(bool(failed))
