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
from papers_repro.fedgen.experiments import EXPERIMENTS, PROTOCOLS, TUNED
from papers_repro.harness import Job, Place
from papers_repro.trials import Trial

CELL = experiments.cell_id("fashion_mnist", 0.1)
"""The comparison whose runs of seed 0 the trials are."""

_RATES = (1e-3, 1e-2, 1e-1)

TRIALS: trials.Choices = {
    "fedprox": {"federated.fedprox.weight": (0.1, 0.01, 1.0)},
    "fedavgm": {"federated.fedavgm.momentum": (0.9, 0.7, 0.5)},
    "fedadam": {"federated.fedadam.learning_rate": (0.01, 0.003, 0.03)},
    "hierarchical": {"federated.hierarchical.period": (5, 2, 10)},
    "feddistill": {"federated.feddistill.weight": (0.1, 1.0, 10.0)},
    "fedgen": {"federated.fedgen.weight": (10.0, 3.0, 30.0)},
    "fedftg": {"federated.fedftg.learning_rate": (1e-3, 3e-4, 3e-3)},
    "dense": {"up_end_cloud.generator_learning_rate": _RATES},
    "co_boosting": {"up_end_cloud.generator_learning_rate": _RATES},
}
"""What a rival tries: a field of its config, and the values; its config's is first."""

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
        # Not what an earlier choice has added.
        size = (*PROTOCOLS[trial.method].size, trial.change)
        one = EXPERIMENTS[f"{CELL}.{trial.method}"]._replace(size=size)
        return experiments.cell(one, job.seed, workdir=workdir)

    place = Place(workdir, False, cell_of)
    return trials.tune(jobs, place, _LAST, num_jobs, console, path)
