"""The published energy tables: every accounting row holds, and a broken cell shows."""

import pathlib
import re
import shutil

import pandas as pd
import pytest

from papers_repro.energy import accounting, reproduce, rows

PUBLISHED = [name for name in accounting.TABLES if name != "known_bad"]
COMMITTED = rows.HERE / "tables"


def bar(**changes):
    cell = {
        "id": "V0.cell",
        "quantity": "energy",
        "unit": "kWh",
        "published": 100.0,
        "locator": "a table",
        "standing": "read",
        "ours": 101.0,
        "kind": "measured",
        "sort": "accounting",
    }
    return rows.row(**(cell | changes))


def read(path):
    """A written table, without the commit, which differs from run to run."""
    return pd.read_csv(path).drop(columns="commit")


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Copies the cells; returns a function that changes text in one of the files."""
    shutil.copytree(rows.HERE / "cells", tmp_path / "cells")
    monkeypatch.setattr(rows, "HERE", tmp_path)

    def change(name, old, new):
        path = tmp_path / "cells" / f"{name}.csv"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def test_a_row_bounds_the_deviation():
    assert bar(tolerance=0.02)["deviation"] == pytest.approx(0.01)
    assert bar(tolerance=0.02)["verdict"] == "met"
    assert bar(tolerance=0.005)["verdict"] == "missed"
    assert bar(tolerance=0.005, ours=99.0)["verdict"] == "missed"
    assert bar(tolerance=0.005, direction=">=")["verdict"] == "met"


def test_a_row_bounds_the_value_where_nothing_was_published():
    row = bar(published=None, ours=0.2, bar=0.289, aim=0.15)
    assert (row["verdict"], row["bar"], row["aim"]) == ("met", 0.289, 0.15)
    assert row["deviation"] is None
    assert bar(published=None, ours=0.7, bar=0.8, direction=">=")["verdict"] == "missed"


def test_a_row_without_a_value_was_not_run():
    assert bar(ours=None, tolerance=0.02)["verdict"] == "not run"


def test_a_cell_from_memory_carries_no_bar():
    row = bar(standing="inferred", tolerance=1e-9)
    assert (row["bar"], row["verdict"]) == (None, "no bar")
    assert row["deviation"] == pytest.approx(0.01)


@pytest.mark.parametrize("field", ["standing", "kind", "sort", "direction"])
def test_a_row_refuses_a_word_of_its_own(field):
    with pytest.raises(ValueError, match=rf"{field} of V0.cell is 'maybe'; allowed"):
        bar(**{field: "maybe"})


def test_a_row_refuses_two_bars():
    with pytest.raises(ValueError, match="give one"):
        bar(tolerance=0.1, bar=1.0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_accounting_row_meets_its_bar(name):
    table = accounting.TABLES[name]()
    assert list(table.columns) == list(rows.COLUMNS)
    assert table["id"].is_unique
    assert not (table["verdict"] == "missed").any()
    # A row is judged unless its cell is from memory, blank, or lacks an input.
    unjudged = table[table["verdict"] != "met"]
    assert set(unjudged["id"]) <= {
        "V6.llama31_405b.t",
        "V8.palm.mwh",
        "V12.development_jupiter.t",
    }


def test_every_cell_names_its_source():
    for name in [*PUBLISHED, "known_bad"]:
        cells = rows.cells(name)
        assert (cells[["source", "locator", "standing"]] != "").all(axis=None), name


def test_known_values_by_hand():
    v1 = accounting.TABLES["V1"]().set_index("id")["ours_mean"]
    kwh = 512 * 20 * 24 * 310 * 1.12 / 1000
    assert v1["V1.t5.mwh"] == pytest.approx(kwh / 1e3)
    assert v1["V1.t5.t_net"] == pytest.approx(kwh * 0.545 / 1e3)
    v7 = accounting.TABLES["V7"]().set_index("id")["ours_mean"]
    idle_t = 256646 * 57 / 1e6
    assert v7["V7.idle.t"] == pytest.approx(idle_t)
    parts = v7[["V7.dynamic.t", "V7.idle.t", "V7.embodied.t"]]
    assert v7["V7.total.t"] == pytest.approx(parts.sum())


def test_carbon_of_a_site_by_hand():
    v12 = accounting.TABLES["V12"]().set_index("id")["ours_mean"]
    # IT energy takes the PUE, energy at the facility does not.
    assert v12["V12.olmo2_13b.t"] == pytest.approx(257 * 1.12 * 0.351)
    assert v12["V12.olmo2_7b.t"] == pytest.approx(157 * 0.332)
    both = 116 * 1.12 * 0.351 + (459 - 116) * 0.332
    assert v12["V12.development.t"] == pytest.approx(both)


def test_days_that_a_table_prints_against_those_that_its_tokens_take():
    table = accounting.known_bad().set_index("id")
    days = 6 * 2e9 * 501e3 * 256e3 / (64 * 123e12) / 86400
    assert table.loc["known_bad.lamda_2b.days", "ours_mean"] == pytest.approx(days)


def test_known_bad_values_are_flagged_with_their_reason():
    table = accounting.known_bad()
    assert (table["verdict"] == "met").all()
    why = rows.cells("known_bad").set_index("row")["why"]
    assert (why.str.len() > 20).all()
    for identity, locator in zip(table["id"], table["locator"], strict=True):
        assert why[identity.removeprefix("known_bad.")] in locator


def test_a_sound_value_is_not_flagged_as_bad(broken):
    broken("known_bad", ",12.9,", ",2040,")
    table = accounting.known_bad().set_index("id")
    assert table.loc["known_bad.llama33_70b.t", "verdict"] == "missed"


@pytest.mark.parametrize(
    ("name", "old", "new", "identity"),
    [
        ("V1", "85.7", "87.5", "V1.t5.mwh"),  # a published digit
        ("V2", "296,1.59", "269,1.59", "V2.transformer_big_p100_us.kwh"),  # an input
        ("V7", "14.6,", "16.4,", "V7.idle.t"),
    ],
)
def test_a_broken_cell_is_caught(broken, name, old, new, identity):
    broken(name, old, new)
    table = accounting.TABLES[name]().set_index("id")
    assert table.loc[identity, "verdict"] == "missed"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "kwh,energy,",
            "kwh,enrgy,",
            "quantity of .* is 'enrgy'; allowed: sum, energy",
        ),
        (",power_w,", ",power,", "energy of .* needs a column 'power_w'"),
    ],
)
def test_a_mistyped_word_is_no_cell_that_was_not_read(broken, old, new, said):
    broken("V2", old, new)
    with pytest.raises(ValueError, match=said):
        accounting.table("V2")


def test_a_line_with_an_unquoted_comma_is_refused(broken):
    broken("V12", "Table 2", "Table 2, first row")
    with pytest.raises(ValueError, match=r"V12.csv line 2 has 16 fields.*quote"):
        rows.cells("V12")


def test_the_command_fails_on_a_missed_accounting_row(broken, tmp_path, capsys):
    chosen = ["--only", "V2,V1", "--out", str(tmp_path)]
    assert reproduce.main(chosen) == 0
    broken("V1", "85.7", "87.5")
    assert reproduce.main(chosen) == 1
    assert "missed: V1.t5.mwh" in capsys.readouterr().out


def test_the_command_refuses_an_unknown_table(capsys):
    with pytest.raises(SystemExit):
        reproduce.main(["--only", "V99"])
    assert "V99" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_told_before_the_work(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(reproduce, "TABLES", {"V1": pytest.fail})
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stopped:
        reproduce.main(["--out", str(tmp_path / "file")])
    assert stopped.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"error: --out is {tmp_path}/file: {tmp_path}/file/tables cannot be" in line


def test_the_command_writes_tables_markdown_and_plot(tmp_path):
    # The order of the ids, not of the argument, nor of the alphabet.
    assert reproduce.main(["--only", "V11,V2", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "tables" / "all.md").read_text()
    assert text.index("## V2\n") < text.index("## V11\n")
    assert "| accounting | 21 |" in text
    assert (tmp_path / "tables" / "deviations.png").stat().st_size > 1000


@pytest.fixture
def kept(tmp_path):
    """A copy of the committed tables; returns their folder."""
    return pathlib.Path(shutil.copytree(COMMITTED, tmp_path / "tables"))


def test_a_chosen_table_leaves_the_others_in_the_markdown_and_in_the_plot(
    kept, monkeypatch, capsys
):
    drawn = {}

    def plot(tables, path):
        drawn.update(tables)
        path.touch()

    monkeypatch.setattr(reproduce, "plot", plot)
    (kept / "V1.csv").write_text("replaced\n")
    before = (kept / "all.md").read_text()
    assert reproduce.main(["--only", "V1", "--out", str(kept.parent)]) == 0
    assert (kept / "all.md").read_text() == before
    assert list(drawn) == sorted(reproduce.TABLES, key=reproduce._order)
    assert drawn["V2"]["verdict"].isin(["met", "missed", "no bar"]).all()
    printed = " ".join(capsys.readouterr().out.split())
    assert f"written to {kept / 'all.md'} and beside it" in printed


def test_a_plot_that_breaks_leaves_the_one_before(kept, monkeypatch):
    def broken_plot(tables, path):
        path.write_text("half a pict")
        raise OSError("no space left")

    monkeypatch.setattr(reproduce, "plot", broken_plot)
    before = (kept / "deviations.png").read_bytes()
    with pytest.raises(OSError, match="no space left"):
        reproduce.main(["--only", "V1", "--out", str(kept.parent)])
    assert (kept / "deviations.png").read_bytes() == before


def test_the_help_lists_the_ids_and_says_what_is_printed(capsys):
    with pytest.raises(SystemExit):
        reproduce.main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "of V1, V2, V3" in printed
    assert all(name in printed for name in reproduce.TABLES)
    assert "Prints counts of verdicts and the rows that missed" in printed


def test_the_committed_tables_are_what_the_code_prints(tmp_path):
    reproduce.main(["--out", str(tmp_path)])
    written = sorted(path.name for path in (tmp_path / "tables").glob("*.csv"))
    assert written == sorted(path.name for path in COMMITTED.glob("*.csv"))
    for name in written:
        ours, theirs = (
            read(folder / name) for folder in (tmp_path / "tables", COMMITTED)
        )
        # Versions of JAX trace a few elementwise operations more or fewer, which a
        # deviation near zero would show large in relative terms.
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4, atol=1e-4, obj=name)
    printed, kept = (
        re.sub(r"\d+(\.\d+)?", "number", (folder / "all.md").read_text())
        for folder in (tmp_path / "tables", COMMITTED)
    )
    assert printed == kept  # the numbers are those of the CSV files above
