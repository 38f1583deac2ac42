"""Claims of the papers behind the relay cycle, set beside rows of our tables."""

import pandas as pd
import pytest

from papers_repro.relay_cycle import claims

ONE = {
    **{"id": "p.gain", "claim": "a gain", "source": "P", "locator": "abstract"},
    **{"standing": "read", "table": "T1.csv", "row": "T1.gain", "minus": ""},
    **{"sign": ">", "than": 0.0, "differences": "", "reason": ""},
}


def written(folder, *changes):
    path = folder / "claims.csv"
    pd.DataFrame([{**ONE, **change} for change in changes]).to_csv(path, index=False)
    return path


def shown(folder, mean, worst, **change):
    """The cells of one claim, set against a row of a table."""
    row = {"unit": "%", "seeds": "0 1", "commit": ""}
    rows = [
        {"id": "T1.gain", "ours_mean": mean, "ours_worst": worst, **row},
        {"id": "T1.other", "ours_mean": 5.0, "ours_worst": 4.0, **row},
    ]
    pd.DataFrame(rows).to_csv(folder / "T1.csv", index=False)
    table = claims.checked(claims.read(written(folder, change)), folder)
    return dict(zip(table.header, table.rows[0], strict=True))


def test_the_committed_page_is_what_the_command_prints():
    page = claims.HERE / "tables" / "claims.md"
    printed = claims.tables.to_markdown(claims.checked(claims.read()))
    assert printed == page.read_text("utf-8")


def test_every_claim_has_a_source_and_says_how_it_was_read():
    frame = claims.read()
    said = frame[["claim", "source", "locator", "standing"]]
    assert said.notna().all(axis=None)
    assert {id.partition(".")[0] for id in frame["id"]} == {"ecogen", "gaisnet"}


@pytest.mark.parametrize(
    ("mean", "worst", "sign", "answer"),
    [
        (1.0, 0.5, ">", "yes"),
        (1.0, 0.0, ">", "mean alone"),
        (-1.0, -2.0, ">", "no"),
        (-1.0, -0.5, "<", "yes"),
        (0.0, 0.0, "=", "yes"),
        (0.0, 1.0, "=", "mean alone"),
    ],
)
def test_a_direction_is_checked_on_the_mean_and_the_worst_seed(
    tmp_path, mean, worst, sign, answer
):
    cells = shown(tmp_path, mean, worst, sign=sign)
    assert (cells["direction"], cells["confirmed"]) == (f"{sign} 0", answer)
    assert cells["ours"] == f"{mean:.4g} %"


def test_two_rows_are_compared_by_their_means(tmp_path):
    cells = shown(tmp_path, 3.0, 9.0, minus="T1.other", sign="<")
    assert (cells["row"], cells["ours"]) == ("T1.gain - T1.other", "-2 %")
    assert cells["confirmed"] == "yes"


def test_a_claim_without_a_row_says_why(tmp_path):
    cells = shown(tmp_path, 1.0, 1.0, row="", reason="a survey")
    assert (cells["confirmed"], cells["note"]) == ("-", "no row: a survey")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([{"standing": "heard"}], r"\['p.gain'\] have no standing of .*'read'"),
        ([{"sign": ">="}], "have a row and no sign of"),
        ([{}, {}], "have an id that is there twice"),
        ([{"reason": "a survey"}], "have not either a row or a reason"),
        ([{"row": ""}], "have not either a row or a reason"),
    ],
)
def test_a_wrong_claim_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        claims.read(written(tmp_path, *changes))


@pytest.mark.parametrize("field", ["row", "minus"])
def test_a_row_that_no_table_has_is_named(tmp_path, field):
    with pytest.raises(ValueError, match=r"p.gain names 'T1.lost', not in T1.csv"):
        shown(tmp_path, 1.0, 1.0, **{field: "T1.lost"})


def test_the_command_writes_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["claims"])
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    monkeypatch.setattr(claims, "HERE", tmp_path)
    one = claims.tables.TextTable("claims", ("id",), [("p.gain",)])
    monkeypatch.setattr(claims, "checked", lambda frame: one)
    monkeypatch.setattr(claims, "read", lambda: None)
    (tmp_path / "tables").mkdir()
    assert claims.main() == 0
    assert "| p.gain |" in (tmp_path / "tables/claims.md").read_text()
    assert capsys.readouterr().out == "written to tables/claims.md\n"
