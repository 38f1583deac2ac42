"""Settings of A4, chosen on validation by as many trials for every distiller.

A trial is the run of A4 with the smaller budget, seed 0, with another value of one
field. The value whose student ends highest on validation images is taken, for both
budgets and all seeds; the run of that trial is the one that the table shows.
"""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
from rich.console import Console

from ecogen_jax.report import bars, runs
from ecogen_jax.run import sweep
from papers_repro import harness
from papers_repro.dfkd import experiments
from papers_repro.dfkd.experiments import DISTILLERS, EXPERIMENTS, TUNED, Budget
from papers_repro.harness import Job

TRIALS: dict[str, tuple[str, tuple[float, ...]]] = {
    "relay": ("weights.adversarial", (2.0, 0.6, 0.3)),
    # Their weights are published. The student's Adam is ours, in place of their SGD.
    **dict.fromkeys(DISTILLERS, ("learning_rate", (2e-3, 4e-3, 1e-3))),
}
"""What a distiller tries: a field of its hop, and the values."""

_LAST = "hops.-1.last_validation"


class Trial(NamedTuple):
    """One value of one field of a distiller's hop."""

    distiller: str
    field: str
    value: float

    @property
    def change(self) -> str:
        """What it changes in the hop: `field=value`."""
        return f"{self.field}={self.value}"

    @property
    def job(self) -> Job:
        """Its run, which starts from the teacher of A4."""
        short = EXPERIMENTS[f"A4.{self.distiller}"]
        return Job(f"{short.id}.{self.change}", 0, short.start)


def tune(
    workdir: str,
    budgets: Mapping[tuple[str, float], Budget],
    num_jobs: int,
    console: Console,
    path: pathlib.Path = TUNED,
) -> tuple[pd.DataFrame, list[str]]:
    """Makes all trials and writes what they came to.

    Args:
        workdir: the folder of all runs.
        budgets: of A4, see `experiments.read_budgets`.
        num_jobs: runs side by side.
        console: gets a line for each run.
        path: the CSV to write, once no trial is missing.

    Returns:
        A row a trial: distiller, field, value, validation (percent), and whether it is
        the distiller's best, the first of equals. What failed, and where its log is.
    """
    trials = {
        trial.job.experiment: trial
        for name, (field, values) in TRIALS.items()
        for trial in (Trial(name, field, value) for value in values)
    }

    def cell_of(job: Job, start: str) -> sweep.Cell:
        trial = trials.get(job.experiment)
        id = f"A4.{trial.distiller}" if trial else job.experiment
        return experiments.cell(
            EXPERIMENTS[id],
            job.seed,
            workdir=workdir,
            start_from=start,
            budgets=budgets,
            tuned={trial.distiller: trial.change} if trial else {},
        )

    jobs = {trial.job: trial for trial in trials.values()}
    teacher = Job(next(iter(jobs)).start, 0)
    place = harness.Place(workdir, False, cell_of)
    failed = harness.make([teacher, *jobs], place, num_jobs, console)
    start = str(sweep.finished_run(cell_of(teacher, "")) or "")
    made = {
        trial: sweep.finished_run(cell_of(job, start)) for job, trial in jobs.items()
    }
    frame = _compared({trial: found for trial, found in made.items() if found})
    if not failed:
        frame.to_csv(path, index=False, lineterminator="\n", float_format="%.6g")
    return frame, failed


def _compared(made: Mapping[Trial, pathlib.Path]) -> pd.DataFrame:
    """What finished trials came to, and which is the best of each distiller."""
    rows = [
        {**trial._asdict(), "validation": 100 * bars.evaluate(_LAST, runs.read(found))}
        for trial, found in made.items()
    ]
    frame = pd.DataFrame(rows, columns=[*Trial._fields, "validation"])
    best = frame.groupby("distiller")["validation"].idxmax()
    return frame.assign(chosen=frame.index.isin(best))
