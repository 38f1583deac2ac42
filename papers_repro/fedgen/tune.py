"""Settings of B4, chosen on validation by as many trials for every rival.

A trial is the run of Fashion-MNIST at alpha 0.1, seed 0. What is chosen is taken for
all comparisons and seeds; the run of that trial is the one that the table shows. The
learning rate of devices is that of the published protocol for everybody, so those who
have no field of their own beside it have no trial.
"""

import pathlib

import pandas as pd
from rich.console import Console

from ecogen_jax.run import sweep
from papers_repro import trials
from papers_repro.fedgen import experiments
from papers_repro.fedgen.experiments import EXPERIMENTS, TRIALS, TUNED
from papers_repro.harness import Job, Place
from papers_repro.trials import Trial

CELL = experiments.cell_id("fashion_mnist", 0.1)
"""The comparison whose runs of seed 0 the trials are."""

_LAST = "phases.-1.validation_accuracy.end_seen"


def tune(
    workdir: str, num_jobs: int, console: Console, path: pathlib.Path = TUNED
) -> tuple[pd.DataFrame, list[str]]:
    """Makes all trials; see `trials.tune`.

    Args:
        workdir: the folder of all runs.
        num_jobs: runs side by side.
        console: gets a line for each run.
        path: the CSV to write.
    """
    jobs = {
        trial: Job(f"{CELL}.{trial.method}.{trial.change}", 0)
        for trial in trials.trials(TRIALS)
    }
    of_job = {job.experiment: trial for trial, job in jobs.items()}

    def cell_of(job: Job, start: str) -> sweep.Cell:
        del start
        trial: Trial = of_job[job.experiment]
        # In place of what an earlier call has chosen.
        one, tried = EXPERIMENTS[f"{CELL}.{trial.method}"], {trial.method: trial.change}
        return experiments.cell(one, job.seed, workdir=workdir, tuned=tried)

    place = Place(workdir, False, cell_of)
    return trials.tune(jobs, place, _LAST, num_jobs, console, path)
