"""The script that prints bars, and the rows of its earlier table that it keeps."""

import errno
import math
import re
import sys

import pandas as pd
import pytest

from ecogen_jax.report import files
from scripts import table as script
from tests.test_bars import found, frame


def run_script(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["table.py", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "100")
    return script.main()


def test_the_script_prints_and_writes_both_forms(tmp_path, monkeypatch, capsys):
    found(tmp_path / "runs", (200.0, 260.0, 230.0))
    others = {"id": "B", "bar": math.nan}, {"id": "C", "dataset": "usps", "aim": 0.3}
    frame({}, *others).to_csv(tmp_path / "bars.csv", index=False)
    run_script(monkeypatch, tmp_path / "bars.csv", tmp_path / "runs")
    out = capsys.readouterr().out
    assert "mean <= 240" in out
    assert "supports no claim" not in out
    table = pd.read_csv(tmp_path / "tables" / "bars.csv")
    assert table["verdict"].tolist() == ["met", "no bar", "not run"]
    shared = "training time, in seconds | s"
    assert (tmp_path / "tables" / "bars.md").read_text().splitlines()[4:] == [
        f"| A | mnist | {shared} | 230 | 30 | 260 | 0 1 2 | mean <= 240 | - | met |",
        f"| B | mnist | {shared} | 230 | 30 | 260 | 0 1 2 | - | - | no bar |",
        f"| C | usps | {shared} | - | - | - | - | mean <= 240 | 0.3 | not run |",
    ]


def test_the_script_says_that_few_seeds_support_nothing(tmp_path, monkeypatch, capsys):
    found(tmp_path / "runs", (1.0, 2.0))
    frame({}).to_csv(tmp_path / "bars.csv")
    run_script(monkeypatch, tmp_path / "bars.csv", tmp_path / "runs")
    assert "fewer than 3 seeds" in capsys.readouterr().out


def test_the_script_ends_on_bad_input(tmp_path, monkeypatch, capsys):
    found(tmp_path / "runs")
    assert run_script(monkeypatch, tmp_path / "bars.csv", tmp_path / "runs") == 2
    assert re.match(r"error: .*bars.csv", capsys.readouterr().err)


def written(tmp_path):
    return pd.read_csv(tmp_path / "tables" / "bars.csv").set_index("id")


def two_experiments(tmp_path, monkeypatch, **change):
    """The script over runs of A and B, then of A alone, whose B's bar has a change."""
    a, b = {"id": "A"}, {"id": "B", "experiment": "other"}
    path = tmp_path / "bars.csv"
    frame(a, b).to_csv(path, index=False)
    found(tmp_path / "a", (0.1 + 0.2,))
    made = found(tmp_path / "b", (0.1 + 0.2, 0.7, 1 / 3), experiment="other")
    run_script(monkeypatch, path, tmp_path / "a", tmp_path / "b")
    before = written(tmp_path)
    frame(a, {**b, **change}).to_csv(path, index=False)
    run_script(monkeypatch, path, tmp_path / "a")
    return before, written(tmp_path), made


def test_a_row_without_its_runs_stays_as_printed(tmp_path, monkeypatch):
    before, after, made = two_experiments(tmp_path, monkeypatch)
    pd.testing.assert_frame_equal(after, before, check_exact=True)
    assert after.loc["B", "seeds"] == "0 1 2"
    assert after.loc["B", "commit"].startswith(made[0].manifest["git_commit"])


@pytest.mark.parametrize("end", [".md", ".csv"])
def test_a_table_that_cannot_be_put_is_lost_by_no_row(tmp_path, monkeypatch, end):
    two_experiments(tmp_path, monkeypatch)
    path = tmp_path / "tables" / "bars.csv"
    before, put = path.read_bytes(), files.put

    def full(to, text):
        if to.suffix == end:
            raise OSError(errno.ENOSPC, "no space left")
        put(to, text)

    monkeypatch.setattr(files, "put", full)
    assert run_script(monkeypatch, tmp_path / "bars.csv", tmp_path / "b") == 2
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("keep", "reason"),
    [
        (lambda text: "", "No columns to parse"),
        (lambda text: text[: len(text) // 2], "its last line is cut"),
        (lambda text: text[text.index("\n") + 1 :], "it has no id, ours_mean"),
        (lambda text: text + '"\n', "EOF inside string"),
    ],
)
def test_a_damaged_table_is_told_with_the_remedy_and_stays(
    tmp_path, monkeypatch, capsys, keep, reason
):
    two_experiments(tmp_path, monkeypatch)
    path = tmp_path / "tables" / "bars.csv"
    path.write_text(keep(path.read_text()))
    before = path.read_bytes()
    capsys.readouterr()
    assert run_script(monkeypatch, tmp_path / "bars.csv", tmp_path / "a") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path} is damaged (")
    assert reason in line
    assert "put a whole one back, or delete it" in line
    assert path.read_bytes() == before


def test_a_corrected_figure_is_taken_into_a_row_that_stays(tmp_path, monkeypatch):
    _, after, _ = two_experiments(tmp_path, monkeypatch, published=0.25)
    ours = after.loc["B", "ours_mean"]
    assert after.loc["B", "seeds"] == "0 1 2"
    assert after.loc["B", "deviation"] == pytest.approx(ours / 0.25 - 1)


@pytest.mark.parametrize(
    "change",
    [
        {"bar": 239},
        {"judged": "worst"},
        {"expression": "accuracy.start.edge"},
        {"scale": 1},
        {"against": "- relay_cycle"},
    ],
)
def test_a_row_whose_bar_has_changed_is_not_kept(tmp_path, monkeypatch, change):
    _, after, _ = two_experiments(tmp_path, monkeypatch, **change)
    assert after["verdict"].tolist() == ["met", "not run"]
    assert math.isnan(after.loc["B", "ours_mean"])


def test_runs_of_no_bar_are_named_beside_the_bars(tmp_path, monkeypatch, capsys):
    found(tmp_path / "runs", experiment="quickstart_smoke", dataset="fake")
    frame({}, {"id": "B", "dataset": "usps"}).to_csv(tmp_path / "bars.csv")
    assert run_script(monkeypatch, tmp_path / "bars.csv", tmp_path / "runs") == 2
    assert capsys.readouterr().err == (
        "error: the bars are about relay_cycle on mnist, relay_cycle on usps, the runs "
        "are quickstart_smoke on fake: none fills a bar; name runs of those "
        "experiments and datasets\n"
    )
    assert not (tmp_path / "tables").exists()
