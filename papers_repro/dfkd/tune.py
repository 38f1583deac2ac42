"""Settings of A4, chosen on validation by as many trials for every distiller.

A trial is the run of A4 with the smaller budget, seed 0. What is chosen is taken for
both budgets and all seeds; where nothing was chosen later, the run of that trial is the
one that the table shows.
"""

import pathlib
from collections.abc import Iterable, Mapping

import pandas as pd
from rich.console import Console

from ecogen_jax.run import sweep
from papers_repro import trials
from papers_repro.dfkd import experiments
from papers_repro.dfkd.experiments import DISTILLERS, EXPERIMENTS, TUNED, Budget
from papers_repro.harness import Job, Place
from papers_repro.hops import Experiment
from papers_repro.trials import Trial

GENERATOR_RATES = {"deep_inversion": 0.1, "pre_dfkd": 4e-3}
"""Of those whose published rate is that of `relay`, 2e-2, or one of pixels."""

# Weights of the others are published. The student's Adam is ours, in place of their
# SGD, and so is the generator, for which a published rate may be too small.
TRIALS: trials.Choices = {
    "relay": {"weights.adversarial": (2.0, 0.6, 0.3, 1.0)},
    **{
        name: {
            "learning_rate": (2e-3, 4e-3, 1e-3),
            "generator_learning_rate": (GENERATOR_RATES.get(name, 2e-2),),
        }
        for name in DISTILLERS
    },
}
"""What a distiller tries: fields of its hop, one at a time, and the values."""

LAST = "hops.-1.last_validation"
"""What trials are compared by."""


def tune(
    workdir: str,
    budgets: Mapping[tuple[str, float], Budget],
    num_jobs: int,
    console: Console,
    path: pathlib.Path = TUNED,
) -> tuple[pd.DataFrame, list[str]]:
    """Makes all trials, each from the teacher of A4; see `trials.tune`.

    Args:
        workdir: the folder of all runs.
        budgets: of A4, see `experiments.read_budgets`.
        num_jobs: runs side by side.
        console: gets a line for each run.
        path: the CSV to write.
    """
    jobs, place = planned(trials.trials(TRIALS), workdir, budgets)
    return trials.tune(jobs, place, LAST, num_jobs, console, path)


def planned(
    todo: Iterable[Trial],
    workdir: str,
    budgets: Mapping[tuple[str, float], Budget],
    rounds: str = "all",
) -> tuple[dict[Trial, Job], Place]:
    """The run of each trial, with the smaller of its method's budgets, and where.

    Args:
        todo: the trials, each with all that it changes.
        workdir: the folder of all runs.
        budgets: of A4.
        rounds: how many of its rounds a trial has, for the names of logs.
    """
    jobs: dict[Trial, Job] = {}
    tried: dict[str, tuple[Experiment, dict[str, str]]] = {}
    for trial in todo:
        experiment = EXPERIMENTS[f"A4.{trial.method}"]
        name = f"{experiment.id}.{rounds} rounds {trial.change}"
        jobs[trial] = Job(name, 0, experiment.start)
        tried[name] = (experiment, {trial.method: trial.change})

    def cell_of(job: Job, start: str) -> sweep.Cell:
        if job.experiment in tried:
            experiment, tuned = tried[job.experiment]
        else:  # what a trial starts from
            experiment, tuned = EXPERIMENTS[job.experiment], {}
        return experiments.cell(
            experiment,
            job.seed,
            workdir=workdir,
            start_from=start,
            budgets=budgets,
            tuned=tuned,
        )

    return jobs, Place(workdir, False, cell_of)
