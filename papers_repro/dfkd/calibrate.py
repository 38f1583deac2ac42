"""Equal budgets for A4: how many rounds of each distiller fit into given seconds.

Times the hop's program as a run executes it, with the settings that were chosen, on one
core, after compilation.
"""

import os
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import pandas as pd

from ecogen_jax import config as configs
from ecogen_jax import keys, mesh
from ecogen_jax.relay.stage import compile_round
from ecogen_jax.report.files import put
from ecogen_jax.run.build import build
from papers_repro.dfkd.experiments import (
    BUDGETS,
    LONG_S,
    SHORT_S,
    Experiment,
    overrides,
)
from papers_repro.origin import processor

MIN_ROUNDS = 10
"""A curve needs some points: a slower distiller gets shorter rounds, where it can."""

_TIMED_STEPS, _TIMED_S, _MAX_CALLS = 2, 20.0, 20


def calibrate(
    experiments: Iterable[Experiment],
    tuned: Mapping[str, str],
    path: pathlib.Path = BUDGETS,
) -> pd.DataFrame:
    """Times each distiller and writes its budgets.

    JAX must not have started, and the process has to be kept on one core.

    Args:
        experiments: of A4, one a distiller.
        tuned: what was chosen, from `read_tuned`; a distiller without has its config.
        path: the CSV to write.

    Returns:
        One row a distiller and budget: distiller, budget_s, seconds_per_round, rounds,
        steps (per round), seconds_per_step, machine.

    Raises:
        ValueError: a single step takes longer than a budget.
    """
    mesh.start(1)
    rows = list[dict[str, Any]]()
    for one in experiments:
        change = tuned.get(one.distiller, "")
        rows += _budgets(one, change, seconds_per_step(one, change))
    frame = pd.DataFrame(rows)
    put(path, frame.to_csv(index=False, lineterminator="\n", float_format="%.5g"))
    return frame


def seconds_per_step(one: Experiment, change: str) -> float:
    """Times short rounds of an experiment's first hop: the median, over their steps."""
    timed = ("data.name=fake", "mesh.num_devices=1", "protocol.baselines=()")
    changes = (*one.overrides, *overrides(change), *timed)
    config = configs.load(one.config_path(), changes)
    steps = min(_TIMED_STEPS, config.down_cloud_edge.steps)
    config.down_cloud_edge.steps = steps
    return float(np.median(list(_round_seconds(config)))) / steps


def _round_seconds(config: configs.ConfigDict) -> Iterator[float]:
    """Seconds of one round after another, until there are enough."""
    experiment = build(config)
    stage = next(stage for _, stage in experiment.plan if stage.is_hop)
    begun = stage.begin(experiment.parties, jax.random.key(0))
    state, inputs = (mesh.place(tree, num_devices=1) for tree in begun)
    one_round = compile_round(stage, experiment.mapping)
    end = None
    for number in range(_MAX_CALLS):
        start = time.process_time()  # what others use of the core is not ours
        moment = keys.moment(keys.data(experiment.key), 1, number)
        after = one_round(state, inputs, moment)
        state, _ = jax.block_until_ready(after)
        seconds = time.process_time() - start
        if end is None:  # the first call compiles
            end = time.perf_counter() + _TIMED_S
            continue
        yield seconds
        if time.perf_counter() > end:
            return


def _budgets(one: Experiment, change: str, step_s: float) -> Iterator[dict[str, Any]]:
    changes = overrides(change)
    wanted = configs.load(one.config_path(), changes).down_cloud_edge.steps
    is_chosen = any(".steps=" in one_field for one_field in changes)
    for budget_s in (SHORT_S, LONG_S):
        most = wanted if is_chosen else int(budget_s / step_s / MIN_ROUNDS)
        steps = max(1, min(wanted, most))
        if steps * step_s > budget_s:
            raise ValueError(
                f"a step of {one.distiller} takes {step_s:.0f} s, more than "
                f"{budget_s:.0f} s; lower down_cloud_edge.inner_steps or student_steps "
                f"in {one.config_path()}"
            )
        yield {
            "distiller": one.distiller,
            "budget_s": budget_s,
            "seconds_per_round": steps * step_s,
            "rounds": int(budget_s / (steps * step_s)),
            "steps": steps,
            "seconds_per_step": step_s,
            "machine": machine(),
        }


def machine() -> str:
    """Processor, cores and the version of JAX, as one line."""
    return f"{processor()}, 1 core of {os.cpu_count()}, jax {jax.__version__}"
