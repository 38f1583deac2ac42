"""Tables of papers: what was printed of runs that are gone is not lost."""

import dataclasses
import importlib
import shutil

import pandas as pd
import pytest

from ecogen_jax.report import runs
from papers_repro import paper
from papers_repro.dfkd import table
from papers_repro.dfkd.table import PAPER
from tests.run_folders import make_run


def made(workdir, experiment, accuracies):
    """One run a seed, whose hops taught nets of that accuracy."""
    for seed, test in accuracies.items():
        hop = {
            "test": test,
            "teacher": {"test": 0.99},
            "mean_over_training_validation": 0.9,
            "peak_validation": test,
            "last_validation": test,
        }
        make_run(workdir, experiment, seed, hops=[hop], dataset="mnist")
    return [runs.read(path) for path in runs.find([workdir / experiment])]


def test_what_was_printed_before_stays_where_its_runs_are_gone(tmp_path):
    tables = tmp_path / "tables"
    early = made(tmp_path / "early", "D1", {0: 0.97, 1: 0.96})
    early += made(tmp_path / "early", "D1.direct", {0: 0.98, 1: 0.98})
    PAPER.write({"D1": table.judged("D1", early)}, tables)
    late = table.judged("D1", made(tmp_path / "late", "D1.direct", {0: 0.9}))
    rows = PAPER.kept("D1", late, tables).set_index("id")
    assert list(rows.index) == list(late["id"])
    assert rows.loc["D1.relay", "ours_mean"] == 96.5  # as printed before
    assert rows.loc["D1.direct", "ours_mean"] == 90  # of the run at hand
    assert rows.loc["D1.minus_direct", "ours_mean"] == -1.5
    assert rows.loc["D1.minus_direct", "verdict"] == "missed"
    # Printing again changes nothing, and a table from nothing is as judged.
    PAPER.write({"D1": rows.reset_index()}, tables)
    again = PAPER.kept("D1", table.judged("D1", []), tables)
    written = paper.read(tables / "D1.csv")
    pd.testing.assert_frame_equal(again, written, check_dtype=False)  # of blank columns
    pd.testing.assert_frame_equal(PAPER.kept("D1", late, tmp_path), late)


def test_a_bar_of_an_unknown_experiment_is_told_with_what_is_near():
    frame = PAPER.chosen(["D2"]).assign(experiment="D2.flit")
    with pytest.raises(ValueError, match=r"the experiment 'D2.flit', .*: D2.flat"):
        PAPER.experiments(frame)


def test_a_damaged_table_is_told_with_the_remedy(tmp_path):
    (tmp_path / "D1.csv").write_text("")
    with pytest.raises(ValueError, match=r"D1.csv is damaged \(.*put a whole one back"):
        PAPER.kept("D1", table.judged("D1", []), tmp_path)


def test_a_corrected_claim_is_taken_into_a_row_that_stays(tmp_path):
    found = made(tmp_path / "runs", "D1", {0: 0.97})
    before = table.judged("D1", found)
    PAPER.write({"D1": before}, tmp_path)
    claimed = PAPER.bars["D1"].assign(published=50.0, aim=7.0)
    corrected = dataclasses.replace(PAPER)
    corrected.__dict__["bars"] = {"D1": claimed}  # in place of what the files say
    rows = corrected.kept("D1", corrected.judged(claimed, []), tmp_path)
    kept = rows.set_index("id").loc["D1.edge"]
    assert kept["ours_mean"] == 97
    assert (kept["published"], kept["aim"]) == (50, 7)
    assert kept["deviation"] == pytest.approx(97 / 50 - 1)


def test_a_row_whose_bar_has_changed_is_not_kept(tmp_path):
    before = table.judged("D1", made(tmp_path / "runs", "D1", {0: 0.97}))
    before.loc[before["id"] == "D1.relay", "bar"] = 90.0
    PAPER.write({"D1": before}, tmp_path)
    rows = PAPER.kept("D1", table.judged("D1", []), tmp_path).set_index("id")
    assert rows.loc["D1.relay", "verdict"] == "not run"
    assert rows.loc["D1.edge", "ours_mean"] == 97


@pytest.fixture(params=["dense", "dfkd", "fedgen"])
def folder(request):
    """A folder of `papers_repro/` that makes runs."""
    return request.param


def module_of(folder, name):
    return importlib.import_module(f"papers_repro.{folder}.{name}")


def test_the_committed_tables_are_what_their_csv_prints(tmp_path, folder):
    made = module_of(folder, "table")
    kept = module_of(folder, "experiments").HERE / "tables"
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    written = {path.stem: paper.read(path) for path in kept.glob("*.csv")}
    assert set(written) == set(made.PAPER.bars)
    made.PAPER.write(written, tmp_path, printers=getattr(made, "PRINTERS", None))
    for path in kept.glob("*.md"):
        assert (tmp_path / path.name).read_text() == path.read_text(), path.name


def test_every_bar_is_about_an_experiment_on_its_dataset(folder):
    rows = module_of(folder, "table").PAPER.chosen()
    experiments = module_of(folder, "experiments").EXPERIMENTS
    assert rows["id"].is_unique
    for id, dataset in zip(rows["experiment"], rows["dataset"], strict=True):
        assert experiments[id].dataset == dataset
    asked = set(module_of(folder, "table").PAPER.experiments(rows))
    # Others are what runs start from.
    starts = {one.start for one in experiments.values() if hasattr(one, "start")}
    assert asked <= set(experiments) <= asked | starts
