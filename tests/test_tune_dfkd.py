"""Trials of A4: as many for every distiller, compared on validation."""

import io

import pytest
from rich.console import Console

from ecogen_jax import config as configs
from ecogen_jax.run import sweep
from papers_repro import trials
from papers_repro.dfkd import experiments, tune
from papers_repro.dfkd.experiments import EXPERIMENTS, TUNED
from tests.stand_in_runs import ALL_BUDGETS, ALL_TUNED, stand_in


def test_every_distiller_has_as_many_trials_and_its_config_is_one_of_them():
    assert set(tune.TRIALS) == set(ALL_TUNED)
    listed = trials.trials(tune.TRIALS)
    assert len(set(listed)) == 4 * len(tune.TRIALS)
    assert all(sum(len(v) for v in one.values()) == 4 for one in tune.TRIALS.values())
    for name in experiments.DISTILLERS:
        hop = configs.load(f"configs/hops/{name}.py").down_cloud_edge
        assert hop.learning_rate in tune.TRIALS[name]["learning_rate"]
        (rate,) = tune.TRIALS[name]["generator_learning_rate"]
        assert hop.generator_learning_rate != rate


def test_the_config_of_relay_has_what_was_chosen():
    config = f"configs/hops/{EXPERIMENTS['A4.relay'].config}.py"
    chosen = f"down_cloud_edge.{trials.chosen(TUNED)['relay']}"
    assert configs.load(config, [chosen]).to_dict() == configs.load(config).to_dict()


def test_trials_are_compared_on_validation(tmp_path, monkeypatch):
    teacher = "teacher.fashion_mnist"
    few = {id: EXPERIMENTS[id] for id in (teacher, "A4.nayer", "A4.dfq")}
    stand_in(tmp_path, monkeypatch)
    monkeypatch.setattr(tune, "EXPERIMENTS", few)
    few_trials = {
        "nayer": {"learning_rate": (2e-3, 3e-3, 1e-3)},
        "dfq": {"learning_rate": (2e-3, 4e-3, 1e-3)},
    }
    monkeypatch.setattr(tune, "TRIALS", few_trials)
    console, path = Console(file=io.StringIO()), tmp_path / "tuned.csv"
    frame, failed = tune.tune("runs", ALL_BUDGETS, 2, console, path)
    assert not failed
    assert list(frame["validation"]) == pytest.approx(
        [99.9, 100, 99.8] + [99.9] * 2 + [99.8]
    )
    assert list(frame["chosen"]) == [False, True, False, True, False, False]
    chosen = trials.chosen(path)
    assert chosen == {"nayer": "learning_rate=0.003", "dfq": "learning_rate=0.002"}
    # What was chosen has been run: the table finds it.
    (start,) = tmp_path.glob(f"runs/{teacher}/*seed0")
    start = str(start.relative_to(tmp_path))
    given = {"start_from": start, "budgets": ALL_BUDGETS, "tuned": chosen}
    cell = experiments.cell(few["A4.nayer"], 0, workdir="runs", **given)
    assert sweep.finished_run(cell) is not None
