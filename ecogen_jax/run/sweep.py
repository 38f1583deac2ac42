"""A grid of runs, cell by cell; each run is its own process."""

import hashlib
import itertools
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from ml_collections import ConfigDict

from ecogen_jax import config as config_lib
from ecogen_jax.run import writer
from ecogen_jax.run.build import CHOICES

LONGEST_NAME = 150
"""Characters of a log's name before its hash."""


class Cell(NamedTuple):
    """One run of a sweep.

    Attributes:
        spec: config file, with its argument.
        overrides: `field=value` for every field that the sweep sets.
    """

    spec: str
    overrides: tuple[str, ...]


class Result(NamedTuple):
    """The outcome of a cell.

    Attributes:
        cell: the cell.
        status: "skipped" (a finished run was there), "done" or "failed".
        seconds: wall seconds that it took.
        where: the run folder, or the log of a failed cell.
    """

    cell: Cell
    status: str
    seconds: float
    where: Path


def cells(
    spec: str, seeds: Sequence[int], grid: Sequence[str], fixed: Sequence[str] = ()
) -> list[Cell]:
    """Lays out the grid.

    Args:
        spec: config file, with its argument.
        seeds: one run each for every point of the grid.
        grid: `field=value,value,...` for every axis. A comma inside brackets or quotes
            does not split: `data.public_missing_classes=(),(8,9)` has two values, and
            so has `nets.end='cnn_medium,mlp',cnn_small`.
        fixed: overrides `field=value` that are the same for every cell.

    Returns:
        The cells; the seed changes fastest.

    Raises:
        ValueError: an axis is not of that form, is that of the seed, or is there twice.
    """
    fields = [axis.partition("=")[0] for axis in grid]
    if "seed" in fields:
        raise ValueError("grid has an axis of the seed; give the seeds by --seeds")
    twice = {field for field in fields if fields.count(field) > 1}
    if twice:
        raise ValueError(
            f"grid has two axes of {', '.join(sorted(twice))}; name all values in one, "
            "such as data.alpha=0.1,0.3"
        )
    axes = [*map(_axis, grid), [f"seed={seed}" for seed in seeds]]
    return [Cell(spec, (*fixed, *point)) for point in itertools.product(*axes)]


def command(train: Path, cell: Cell) -> list[str]:
    """Returns the command line that runs a cell with the script `train`."""
    overrides = (f"--config.{override}" for override in cell.overrides)
    return [sys.executable, str(train), "--config", cell.spec, *overrides]


def finished_run(cell: Cell) -> Path | None:
    """Returns the newest finished run of the cell's config."""
    return newest(config_lib.load(cell.spec, cell.overrides))


def newest(config: ConfigDict) -> Path | None:
    """Returns the newest finished run of a config, but for fields without effect."""
    found = writer.find_runs(
        config.run.workdir,
        config.experiment,
        config.seed,
        config_lib.to_dict(config),
        finished=True,
    )
    return next(found, None)


def is_reported(path: Path) -> bool:
    """Returns whether a finished run has its report, which is written last."""
    return (path / "report.html").exists()


def log_path(cell: Cell, workdir: str | Path) -> Path:
    """Returns the file that a cell's output goes to.

    Its name begins with what the cell is, as far as file systems allow such a name, and
    ends with a hash of it, since files of one name lie in several folders of configs.
    """
    own = [one for one in cell.overrides if not one.startswith("run.workdir=")]
    digest = hashlib.sha256(" ".join((cell.spec, *own)).encode()).hexdigest()[:12]
    name = " ".join((Path(cell.spec).name, *own))
    slug = re.sub(r"[^\w.,=-]+", "_", name)[:LONGEST_NAME]
    return writer.folder_of(workdir) / "sweep-logs" / f"{slug}-{digest}.log"


def run(
    todo: Sequence[Cell], train: Path, started: Callable[[Cell], None]
) -> Iterator[Result]:
    """Runs the cells one after the other; a failed one does not end the sweep.

    Args:
        todo: the cells. All configs are resolved first, so that a typo stops the
            sweep before any work.
        train: the training script; it resumes an unfinished run by itself.
        started: called with each cell before it runs.

    Yields:
        The outcome of each cell.

    Raises:
        ConfigError: a config is wrong, or no log can be written in its
            `run.workdir`.
    """
    configs = [config_lib.load(*cell) for cell in todo]
    for config in configs:
        config_lib.check(config, CHOICES)
    for cell, config in zip(todo, configs, strict=True):
        started(cell)
        yield _run_cell(cell, train, config.run.workdir)


def _run_cell(cell: Cell, train: Path, workdir: str) -> Result:
    done = finished_run(cell)
    if done is not None and is_reported(done):
        return Result(cell, "skipped", 0.0, done)
    log = log_path(cell, workdir)
    start = time.perf_counter()
    with _begun(log, workdir) as file:
        process = subprocess.run(
            command(train, cell), stdout=file, stderr=subprocess.STDOUT, check=False
        )
    seconds = time.perf_counter() - start
    if process.returncode != 0:
        return Result(cell, "failed", seconds, log)
    done = finished_run(cell)
    if done is None:
        with log.open("a") as file:
            file.write("sweep: exit status 0, but no finished run of this config\n")
        return Result(cell, "failed", seconds, log)
    return Result(cell, "done", seconds, done)


def _begun(log: Path, workdir: str) -> IO[str]:
    """Opens an empty log, in a folder that is made where it is missing."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("w")
    except OSError as error:
        raise writer.refused(workdir, error) from error


def _axis(text: str) -> list[str]:
    """Splits `field=a,b` into `field=a` and `field=b`."""
    field, equals, listed = text.partition("=")
    if not (field and equals and listed):
        raise ValueError(
            f"grid axis {text!r} is not of the form field=value,value; "
            "an example is data.alpha=0.1,0.3"
        )
    return [f"{field}={value}" for value in _values(listed)]


def _values(listed: str) -> list[str]:
    """Splits at the commas that are inside neither brackets nor quotes."""
    values, depth = [""], 0
    # A quote that is never closed is a character like any other.
    for part in re.findall(r"""'[^']*'|"[^"]*"|.""", listed, re.DOTALL):
        if part == "," and not depth:
            values.append("")
            continue
        values[-1] += part
        depth = max(0, depth + (part in "([{") - (part in ")]}"))
    return values
