"""Settings that are chosen on validation, by as many trials for every method.

A trial is a run with other values of some fields. What ends highest on validation
images is taken.
"""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
from rich.console import Console

from ecogen_jax.report import runs, verdicts
from ecogen_jax.report.files import put
from ecogen_jax.run import sweep
from papers_repro import harness
from papers_repro.harness import Job, Place

Choices = Mapping[str, Mapping[str, tuple[float, ...]]]
"""Method -> field of its config -> the values that are tried."""


class Trial(NamedTuple):
    """What a method tries.

    Attributes:
        method: its name.
        change: of its config: `field=value`, or several with a space between them.
    """

    method: str
    change: str


def trials(choices: Choices) -> list[Trial]:
    """Lists the trials of all methods."""
    return [
        Trial(method, f"{field}={value:g}")
        for method, fields in choices.items()
        for field, values in fields.items()
        for value in values
    ]


def tune(
    jobs: Mapping[Trial, Job],
    place: Place,
    measure: str,
    num_jobs: int,
    console: Console,
    path: pathlib.Path,
) -> tuple[pd.DataFrame, list[str]]:
    """Makes all trials, after what they start from, and writes what they came to.

    Args:
        jobs: the run of each trial.
        place: where.
        measure: of a summary, the validation accuracy as a fraction; see
            `verdicts.evaluate`.
        num_jobs: runs side by side.
        console: gets a line for each run.
        path: the CSV to write, once no trial is missing.

    Returns:
        A row a trial: method, change, validation (percent), and whether it is the
        method's best, the first of equals. What failed, and where its log is.
    """
    scores, failed = make(jobs, place, measure, num_jobs, console)
    rows = [{**trial._asdict(), "validation": score} for trial, score in scores.items()]
    frame = pd.DataFrame(rows, columns=[*Trial._fields, "validation"])
    best = frame.groupby("method")["validation"].idxmax()
    frame = frame.assign(chosen=frame.index.isin(best))
    if not failed:
        write(path, frame)
    return frame, failed


def make(
    jobs: Mapping[Trial, Job],
    place: Place,
    measure: str,
    num_jobs: int,
    console: Console,
) -> tuple[dict[Trial, float], list[str]]:
    """Makes trials, after what they start from; see `tune`.

    Returns:
        What each that is finished came to, in percent; what failed, and where its log
        is.
    """
    starts = {Job(job.start, job.seed): None for job in jobs.values() if job.start}
    failed = harness.make([*starts, *jobs.values()], place, num_jobs, console)
    made = {trial: _folder(job, place) for trial, job in jobs.items()}
    return {
        trial: 100 * verdicts.evaluate(measure, runs.read(found))
        for trial, found in made.items()
        if found
    }, failed


def write(path: pathlib.Path, frame: pd.DataFrame) -> None:
    """Writes trials for `chosen` and `validation`."""
    put(path, frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def _folder(job: Job, place: Place) -> pathlib.Path | None:
    """Where a job's run is, once it is finished."""
    start = _folder(Job(job.start, job.seed), place) if job.start else ""
    return sweep.finished_run(place.cell(job, str(start or "")))


def chosen(path: pathlib.Path, column: str = "change") -> dict[str, str]:
    """Reads what was chosen: the change by method; {} without a file.

    Args:
        path: of the file.
        column: another text of the chosen trials instead.

    Raises:
        ValueError: the file is not one that `write` has written.
    """
    best = _best(path, column)
    return dict(zip(best["method"], best[column], strict=True))


def first(path: pathlib.Path, column: str) -> dict[str, str]:
    """Reads a text of each method's first trial; {} without a file.

    Raises:
        ValueError: as `chosen`.
    """
    rows = _rows(path, column).drop_duplicates("method")
    return dict(zip(rows["method"], rows[column], strict=True))


def joined(before: str, more: str) -> str:
    """The fields of both changes; what both have is as in `more`."""
    fields = dict(one.split("=") for one in (*before.split(), *more.split()))
    return " ".join(f"{field}={value}" for field, value in fields.items())


def validation(path: pathlib.Path) -> dict[str, float]:
    """Reads how high the chosen trials ended: percent by method; {} without a file.

    Raises:
        ValueError: as `chosen`.
    """
    best = _best(path, "validation")
    return dict(zip(best["method"], best["validation"].astype(float), strict=True))


def _best(path: pathlib.Path, column: str) -> pd.DataFrame:
    rows = _rows(path, column)
    return rows[rows["chosen"].astype("bool")]


def _rows(path: pathlib.Path, column: str) -> pd.DataFrame:
    columns = list(dict.fromkeys(["method", column, "chosen"]))
    if not path.exists():
        return pd.DataFrame(columns=columns)
    try:
        return pd.read_csv(path, keep_default_na=False)[columns]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path} lacks one of the columns {', '.join(columns)}: put back "
            "the committed one, or delete it and run with --tune, and then --refine "
            "if the paper has it"
        ) from error
