"""README.md shows the results that the committed tables hold."""

import jax
import pandas as pd
import pytest

from ecogen_jax import config as configs
from ecogen_jax.nets.classifier import classifier
from papers_repro import glance
from scripts import energy


def table(folder, **columns):
    folder.mkdir(parents=True, exist_ok=True)
    blank = {"seeds": "", "commit": ""}
    return pd.DataFrame([{**blank, **columns}]).to_csv(folder / "T1.csv", index=False)


def chosen(root, id="T1.gain", scale=100, unit="points"):
    (root / "papers_repro").mkdir(exist_ok=True)
    row = {"table": "papers_repro/dfkd/tables/T1.csv", "id": id}
    row |= {"scale": scale, "unit": unit, "question": "How much?"}
    pd.DataFrame([row]).to_csv(root / "papers_repro/glance.csv", index=False)


def judged(root, **more):
    row = {"id": "T1.gain", "ours_mean": 0.1234, "ours_std": 0.01, "direction": ">="}
    row |= {"bar": 0.2, "verdict": "missed", "low": 0.1, "high": 0.15}
    table(root / "papers_repro/dfkd/tables", **row | more)


def test_the_readme_has_what_the_tables_say():
    readme = (glance.ROOT / "README.md").read_text("utf-8")
    _, _, rest = readme.partition(glance.BEGIN)
    assert rest.partition(glance.END)[0].strip() == glance.block()


def test_a_row_is_scaled_with_its_bar_and_its_interval(tmp_path):
    judged(tmp_path)
    chosen(tmp_path)
    (row,) = glance.headlines(tmp_path).rows
    assert row == (
        "How much?",
        "+12.34 ± 1.00 points (95 %: 10.00 to 15.00)",
        ">= 20",
        "missed",
        "[T1.gain](papers_repro/dfkd/tables/all.md)",
    )


def test_a_benchmark_shows_its_ratio_and_not_its_seconds(tmp_path):
    judged(tmp_path, ratio=3.5, ours_mean=99.0, low=float("nan"))
    chosen(tmp_path, scale=1, unit="times")
    assert glance.headlines(tmp_path).rows[0][1] == "3.50 times"


def test_a_row_that_no_table_has_is_named(tmp_path):
    judged(tmp_path)
    chosen(tmp_path, id="T1.lost")
    with pytest.raises(ValueError, match=r"'T1.lost', which is not in .*T1.gain"):
        glance.headlines(tmp_path)


def test_verdicts_count_bars_alone(tmp_path, monkeypatch):
    rows = [
        {"id": "A", "bar": 1.0, "verdict": "met"},
        {"id": "B", "bar": 1.0, "verdict": "missed"},
        {"id": "C", "bar": 1.0, "verdict": "not run"},
        {"id": "D", "bar": None, "verdict": "not run"},
        {"id": "E", "bar": 1.0, "verdict": "met", "sort": "circular"},
    ]
    folder = tmp_path / "papers_repro/dfkd/tables"
    folder.mkdir(parents=True)
    for number, row in enumerate(rows):
        frame = pd.DataFrame([{"sort": "", **row, "seeds": "", "commit": ""}])
        frame.to_csv(folder / f"T{number}.csv", index=False)
    monkeypatch.setattr(glance, "PAGES", glance.PAGES[1:2])
    (row,) = glance.verdicts(tmp_path).rows
    assert row == ("[data-free hops](papers_repro/dfkd/README.md)", "1", "B", "C")


def test_a_page_keeps_what_is_around_its_results():
    page = f"above\n{glance.BEGIN}\nold\n{glance.END}\nbelow\n"
    assert glance.replaced(page, "new") == page.replace("old", "new")


@pytest.mark.parametrize(
    "page",
    [
        f"{glance.BEGIN} only",
        f"{glance.END} {glance.BEGIN}",
        f"{glance.BEGIN} {glance.END} {glance.END}",
    ],
)
def test_a_page_without_both_markers_is_left_alone(page):
    with pytest.raises(ValueError, match=r"README.md has to have .* each once"):
        glance.replaced(page, "new")


def test_the_diagram_has_the_sizes_of_the_nets():
    readme = (glance.ROOT / "README.md").read_text("utf-8")
    config = configs.default()
    for net in (config.nets.cloud, config.nets.edge, config.nets.end):
        variables = classifier(net, shape=(28, 28, 1), num_classes=10).init(
            jax.random.key(0)
        )
        size = sum(leaf.size for leaf in jax.tree.leaves(variables.params))
        assert f"{net}, {size:,} parameters" in readme


@pytest.mark.slow
def test_the_readme_forecasts_what_the_script_does(capsys):
    readme = (glance.ROOT / "README.md").read_text("utf-8")
    energy.report(configs.load("configs/relay_cycle.py"))
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    found = {row[0].strip(): [cell.strip() for cell in row[1:] if cell] for row in rows}
    value, low, high = found["energy"]
    ends = f"{low.split()[0]} to {high}"
    assert f"forecasts {value} (90 % interval {ends})" in " ".join(readme.split())
    assert f"{found['CO2e location'][0]} CO2e" in " ".join(readme.split())
