"""Settings that are chosen on validation, by as many trials for every method.

A trial is a run with another value of one field. The value that ends highest on
validation images is taken.
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
    """One value of one field of a method."""

    method: str
    field: str
    value: float

    @property
    def change(self) -> str:
        """What it changes in the config: `field=value`."""
        return f"{self.field}={self.value:g}"


def trials(choices: Choices) -> list[Trial]:
    """Lists the trials of all methods."""
    return [
        Trial(method, field, value)
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
        A row a trial: method, field, value, validation (percent), and whether it is
        the method's best, the first of equals. What failed, and where its log is.
    """
    starts = {Job(job.start, job.seed): None for job in jobs.values() if job.start}
    failed = harness.make([*starts, *jobs.values()], place, num_jobs, console)
    made = {trial: _folder(job, place) for trial, job in jobs.items()}
    rows = [
        {
            **trial._asdict(),
            "validation": 100 * verdicts.evaluate(measure, runs.read(found)),
        }
        for trial, found in made.items()
        if found
    ]
    frame = pd.DataFrame(rows, columns=[*Trial._fields, "validation"])
    best = frame.groupby("method")["validation"].idxmax()
    frame = frame.assign(chosen=frame.index.isin(best))
    if not failed:
        put(path, frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    return frame, failed


def _folder(job: Job, place: Place) -> pathlib.Path | None:
    """Where a job's run is, once it is finished."""
    start = _folder(Job(job.start, job.seed), place) if job.start else ""
    return sweep.finished_run(place.cell(job, str(start or "")))


def chosen(path: pathlib.Path) -> dict[str, str]:
    """Reads what `tune` chose: `field=value` by method; {} without a file.

    Raises:
        ValueError: the file is not one that `tune` has written.
    """
    best = _best(path)
    found = [Trial(*row) for row in best[list(Trial._fields)].itertuples(index=False)]
    return {trial.method: trial.change for trial in found}


def validation(path: pathlib.Path) -> dict[str, float]:
    """Reads how high the chosen trials ended: percent by method; {} without a file.

    Raises:
        ValueError: as `chosen`.
    """
    best = _best(path)
    return dict(zip(best["method"], best["validation"].astype(float), strict=True))


def _best(path: pathlib.Path) -> pd.DataFrame:
    columns = [*Trial._fields, "validation", "chosen"]
    if not path.exists():
        return pd.DataFrame(columns=columns)
    try:
        frame = pd.read_csv(path)[columns]
        return frame[frame["chosen"].astype("bool")]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path} lacks one of the columns {', '.join(columns)}: put back "
            "the committed one, or delete it and run with --tune"
        ) from error
