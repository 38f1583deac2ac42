"""Trials of B4: as many for every rival, compared on validation."""

import io
from operator import attrgetter

import pytest
from rich.console import Console

from ecogen_jax import config as configs
from ecogen_jax.run import sweep
from papers_repro import trials
from papers_repro.fedgen import experiments, tune
from papers_repro.fedgen.experiments import CELLS, EXPERIMENTS, PROTOCOLS, TUNED
from tests.stand_in_runs import stand_in

CHANGES = trials.chosen(TUNED)


def test_every_rival_with_a_field_of_its_own_has_as_many_trials():
    rivals = {one.name for one in PROTOCOLS.values() if not one.out and not one.ours}
    assert rivals - set(tune.TRIALS) == {"alone", "fedavg", "scaffold"}
    assert set(tune.TRIALS) <= rivals
    assert {len(set(values)) for _, values in tune.TRIALS.values()} == {3}
    for name, (field, values) in tune.TRIALS.items():
        assert attrgetter(field)(configs.load(PROTOCOLS[name].config)) == values[0]


@pytest.mark.parametrize("cell", CELLS)
def test_what_was_chosen_is_taken_by_every_comparison(cell):
    assert set(CHANGES) == set(tune.TRIALS)
    for name in PROTOCOLS:
        given = experiments.cell(EXPERIMENTS[f"{cell}.{name}"], 0, workdir="runs")
        changed = [one for one in given.overrides if one in CHANGES.values()]
        assert changed == ([CHANGES[name]] if name in CHANGES else [])


def test_trials_are_compared_on_validation(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch)
    (field, values) = tune.TRIALS["fedadam"]
    monkeypatch.setattr(tune, "TRIALS", {"fedadam": (field, values)})
    console, path = Console(file=io.StringIO()), tmp_path / "tuned.csv"
    frame, failed = tune.tune("runs", 2, console, path)
    assert not failed
    assert list(frame["validation"]) == pytest.approx([99.3, 100, 97.3])
    assert trials.chosen(path) == {"fedadam": "federated.fedadam.learning_rate=0.003"}
    # What was chosen has been run: the table finds it.
    one = EXPERIMENTS[f"{tune.CELL}.fedadam"]._replace(
        size=(*PROTOCOLS["fedadam"].size, trials.chosen(path)["fedadam"])
    )
    assert sweep.finished_run(experiments.cell(one, 0, workdir="runs")) is not None
