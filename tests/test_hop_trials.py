"""The tables of hops say by how many trials the settings of a row were chosen."""

import fnmatch

import pandas as pd
import pytest

from papers_repro import hops, paper
from papers_repro.dense.table import PAPER as DENSE
from papers_repro.dfkd.experiments import REFINED, TUNED
from papers_repro.dfkd.table import PAPER as DFKD

LOGGED = pd.DataFrame(
    [("A1 B*.relay", 30, True), ("B*.relay", 4, False), ("B.dense", 5, False)],
    columns=["experiments", "trials", "about"],
)


@pytest.mark.parametrize(
    ("experiment", "found"),
    [("A1", "~30"), ("B.x.relay", "~34"), ("B.dense", "5"), ("B.clients", "")],
)
def test_the_trials_of_all_lines_for_an_experiment_are_added(experiment, found):
    assert hops.num_trials(experiment, LOGGED) == found


@pytest.mark.parametrize(
    ("experiment", "against", "expression", "found"),
    [
        ("B.relay", None, "hops.-1.test", "~34"),
        ("B.relay_smoke", "- B.dense_smoke", "hops.-1.test", "~34, 5"),
        ("B.relay", None, "hops.-1.test / baselines.ensemble_end.test", "~34"),
        ("B.relay", None, "hops.-1.teacher.test", None),
        ("B.relay", None, "baselines.kd.test", None),
        ("B.clients", "- B.relay", "hops.-1.test", None),
    ],
)
def test_a_row_about_what_a_tuned_hop_taught_has_its_trials(
    tmp_path, monkeypatch, experiment, against, expression, found
):
    monkeypatch.setattr(hops, "TRIALS", tmp_path / "trials.csv")
    LOGGED.to_csv(hops.TRIALS, index=False)
    row = {"experiment": experiment, "against": against, "expression": expression}
    (trials,) = hops.with_trials(pd.DataFrame([row]))["trials"]
    assert trials == found or (found is None and pd.isna(trials))


@pytest.mark.parametrize("of", [DFKD, DENSE], ids=["dfkd", "dense"])
def test_the_committed_tables_have_the_logged_trials(of):
    for path in (of.folder / "tables").glob("*.csv"):
        table = paper.read(path)
        again = hops.with_trials(table.drop(columns="trials"))
        pd.testing.assert_frame_equal(again, table, check_dtype=False, obj=path.name)


def test_every_line_of_the_log_is_about_experiments():
    every = [*DFKD.seeds, *DENSE.seeds]
    for patterns in pd.read_csv(hops.TRIALS)["experiments"]:
        for pattern in patterns.split():
            assert fnmatch.filter(every, pattern), pattern


def test_each_distiller_of_a4_has_the_trials_of_its_log():
    logged = pd.read_csv(hops.TRIALS)
    refined = pd.read_csv(REFINED, keep_default_na=False)
    # What was chosen before is run again with all rounds, which is no other trial.
    again = (refined["rounds"] == "all") & (refined["change"] == "")
    more = refined[~again]["method"].value_counts().to_dict() | {"relay": 9 + 25}
    more["fast"] += 1  # images between two classes
    for name, count in pd.read_csv(TUNED)["method"].value_counts().items():
        assert hops.num_trials(f"A4.{name}", logged) == str(count + more[name])
