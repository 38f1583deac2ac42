"""Trials of B4: as many for every rival, compared on validation."""

import io
from operator import attrgetter

import pandas as pd
import pytest
from rich.console import Console

from ecogen_jax import config as configs
from ecogen_jax.run import sweep
from papers_repro import trials
from papers_repro.dfkd import experiments as dfkd_experiments
from papers_repro.dfkd import tune as dfkd_tune
from papers_repro.fedgen import experiments, tune
from papers_repro.fedgen.experiments import CELLS, EXPERIMENTS, PROTOCOLS, TUNED
from tests.stand_in_runs import stand_in

CHANGES = trials.chosen(TUNED)
ADAM = "federated.fedadam.learning_rate"


def test_every_rival_with_a_field_of_its_own_has_as_many_trials():
    rivals = {one.name for one in PROTOCOLS.values() if not one.out and not one.ours}
    assert rivals - set(tune.TRIALS) == {"alone", "fedavg", "scaffold"}
    assert set(tune.TRIALS) <= rivals
    for name, fields in tune.TRIALS.items():
        ((field, values),) = fields.items()
        assert len(set(values)) == 3
        config = configs.load(f"{experiments.CONFIGS}/{name}.py")
        assert attrgetter(field)(config) == values[0]


@pytest.mark.parametrize("cell", CELLS)
def test_what_was_chosen_is_taken_by_every_comparison(cell):
    assert set(CHANGES) == set(tune.TRIALS)
    for name in PROTOCOLS:
        one = EXPERIMENTS[f"{cell}.{name}"]
        given = experiments.cell(one, 0, workdir="runs", tuned=CHANGES)
        changed = [one for one in given.overrides if one in CHANGES.values()]
        assert changed == ([CHANGES[name]] if name in CHANGES else [])


def test_trials_are_compared_on_validation(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch)
    monkeypatch.setattr(tune, "TRIALS", {"fedadam": {ADAM: (0.01, 0.003, 0.03)}})
    console, path = Console(file=io.StringIO()), tmp_path / "tuned.csv"
    frame, failed = tune.tune("runs", 2, console, path)
    assert not failed
    assert list(frame["validation"]) == pytest.approx([99.3, 100, 97.3])
    assert trials.chosen(path) == {"fedadam": f"{ADAM}=0.003"}
    # What was chosen has been run: the table finds it.
    one, tuned = EXPERIMENTS[f"{tune.CELL}.fedadam"], trials.chosen(path)
    made = experiments.cell(one, 0, workdir="runs", tuned=tuned)
    assert sweep.finished_run(made) is not None


def test_a_rival_without_a_chosen_setting_is_refused():
    one = EXPERIMENTS[f"{tune.CELL}.fedadam"]
    with pytest.raises(ValueError, match=r"fedadam has no setting in tuned.csv; run"):
        experiments.cell(one, 0, workdir="runs", tuned={})
    experiments.cell(one, 0, workdir="runs", smoke=True, tuned={})


def test_nothing_is_written_where_a_trial_failed(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch)
    monkeypatch.setattr(tune, "TRIALS", {"fedadam": {ADAM: (0.01, 0.07)}})
    path = tmp_path / "tuned.csv"
    path.write_text("what was chosen before")
    frame, failed = tune.tune("runs", 2, Console(file=io.StringIO()), path)
    assert len(failed) == 1
    assert "0.07" in failed[0]
    assert list(frame["change"]) == [f"{ADAM}=0.01"]
    assert path.read_text() == "what was chosen before"


def test_a_trial_has_nothing_of_an_earlier_choice(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch)
    other = "federated.fedadam.b1"
    monkeypatch.setattr(tune, "TRIALS", {"fedadam": {other: (0.8,)}})
    frame, failed = tune.tune(
        "runs", 1, Console(file=io.StringIO()), tmp_path / "tuned.csv"
    )
    assert not failed
    # The rate is the config's, 0.01, and so is what the stand-in makes of it.
    assert list(frame["validation"]) == pytest.approx([99.3])


@pytest.mark.parametrize(
    "text", ["", "distiller,field\n", "method,validation,chosen\na,1,True\n"]
)
def test_a_file_of_other_columns_is_refused_with_the_remedy(tmp_path, text):
    path = tmp_path / "tuned.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"tuned\.csv lacks one.*--tune"):
        trials.chosen(path)


@pytest.mark.parametrize(
    ("tuned", "listed"),
    [(dfkd_experiments.TUNED, dfkd_tune.TRIALS), (TUNED, tune.TRIALS)],
)
def test_the_committed_trials_are_those_that_are_listed(tuned, listed):
    frame = pd.read_csv(tuned)
    rows = [trials.Trial(*row) for row in frame.iloc[:, :2].itertuples(index=False)]
    assert rows == trials.trials(listed)
    best = frame.groupby("method")["validation"].transform("max")
    assert (frame["validation"][frame["chosen"]] == best[frame["chosen"]]).all()
    assert frame["chosen"].sum() == len(listed)
