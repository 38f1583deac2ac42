import io
import math
import re
import sys

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from ecogen_jax.report import html, plots, runs, tables
from ecogen_jax.run.evaluate import PROGRESS_IMAGES
from scripts import report as script
from tests.run_folders import HOPS, make_run, summary

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def run(tmp_path):
    return runs.read(make_run(tmp_path))


def titles(figure):
    return [*(axes.get_title() for axes in figure.axes), figure.get_suptitle()]


def printed(table, width=200):
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


# Tables.


def test_phases_show_percent_and_the_gain():
    table = tables.phases(summary("x", 0))
    rows = {row[0]: row[1:] for row in table.rows}
    devices = ("86.0", "97.0", "92.0", "95.0", "76.0", "+30.0")
    assert rows["local 1"] == ("98.0", "95.5", *devices)
    assert rows["start"][-1] == tables.BLANK
    devices = ("56.0", "95.1", "91.2", "100.0", "-", "-")
    assert rows["baseline: local only"] == ("-", "-", *devices)
    assert rows["baseline: ensemble end"] == ("-", "-", "90.0", *["-"] * 5)
    assert table.header == (
        *("phase", "cloud", "edge", "end"),
        *("own", "worst", "seen", "unseen", "gain of end"),
    )


def test_a_column_that_nobody_has_a_value_for_is_left_out():
    made = summary("x", 0, baselines={})
    for phase in made["phases"]:  # no device has private images
        none = ("end_own", "end_own_worst", "end_seen", "end_unseen")
        phase["accuracy"].update(dict.fromkeys(none))
    table = tables.phases(made)
    assert table.header == ("phase", "cloud", "edge", "end", "gain of end")
    assert {len(row) for row in table.rows} == {5}


def test_hops_show_two_digits_and_the_last_value_beside_the_peak():
    table = tables.hops(summary("x", 0))
    rows = {row[0]: row[1:] for row in table.rows}
    assert len(rows) == 8
    assert rows["up/edge_cloud 2"] == (
        *("99.10", "98.12", "97.95", "75.00", "98.34", "98.00", "0.34", "123+10"),
    )
    assert "down/cloud_edge" in rows
    assert tables.hops(summary("x", 0, hops=[])).rows == []


def test_phases_without_a_baseline_have_no_gain():
    table = tables.phases(summary("x", 0, baselines={}))
    assert {row[-1] for row in table.rows} == {tables.BLANK}


def test_ledger_shows_intervals_and_kinds():
    table = tables.ledger(summary("x", 0))
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows) == ["cloud", "edge", "end", "cloud_edge", "edge_end"]
    energy = ("310 J", "186 J", "527 J")
    assert rows["edge"] == (
        *("22 TFLOP", "-", "-", *energy, "40.3 mg", "34.1 mg", "modelled"),
    )
    assert rows["cloud_edge"][:3] == ("-", "1.2 MB", "0 B")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 J"), (1234.5, "1.23 kJ"), (3.2e-5, "32 µJ"), (999.9, "1 kJ"), (None, "-")],
)
def test_human(value, text):
    assert tables.human(value, "J") == text


def test_percent_of_nothing():
    assert (tables.percent(None), tables.percent(math.nan)) == ("-", "-")


def test_terminal_tables_hold_every_cell():
    for text, shown in (
        (tables.phases(summary("x", 0)), tables.phase_table(summary("x", 0))),
        (tables.hops(summary("x", 0)), tables.hop_table(summary("x", 0))),
        (tables.ledger(summary("x", 0)), tables.ledger_table(summary("x", 0))),
    ):
        for cell in cells(text.rows):
            assert cell in printed(shown)


@pytest.mark.parametrize("market", [True, False], ids=["market", "no_market"])
def test_terminal_tables_fit_80_columns_uncut(market):
    made = summary("x", 0)
    places = [made["ledger"][tier] for tier in tables.TIERS]
    links = [made["ledger"]["link"][link] for link in tables.LINKS]
    for cost in places + links:  # numbers as wide as they come
        widths = {"energy_j": 2.345e-2, "energy_low_j": 1.234e-2, "energy_high_j": 456}
        cost.update(widths, carbon_location_g=1.23e-3)
        cost["carbon_market_g"] = 1.11e-4 if market else 1.23e-3
    for cost in places:
        cost["flops"] = 1.234e12
    for cost in links:
        cost.update(up_bytes=1_230_000, down_bytes=45_600_000)
    shown = printed(tables.ledger_table(made), width=80)
    assert ("111 µg" in shown) == market
    assert ("market-based CO2e alike" in shown) != market
    assert "modelled" in shown
    tall = tables.phase_table(made), tables.hop_table(made)
    for table, rows in zip(tall, (tables.phases, tables.hops), strict=True):
        # No cell is broken over lines: the title, header and frame are the rest.
        assert len(printed(table, 80).splitlines()) == len(rows(made).rows) + 5
    for text in (shown, *(printed(table, width=80) for table in tall)):
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= 80
    for row in tables.ledger(made).rows:
        (line,) = (line for line in shown.splitlines() if line.split()[:1] == [row[0]])
        # Each cell stands whole on the line of its row.
        assert all(cell in line for cell in row if cell not in ("modelled", row[8]))


def test_a_ledger_of_several_kinds_names_each():
    made = summary("x", 0)
    made["ledger"]["cloud"]["kind"] = "measured"
    shown = printed(tables.ledger_table(made))
    assert shown.count("modelled") == 4
    assert shown.count("measured") == 1


def cells(rows):
    return [cell for row in rows for cell in row]


def test_from_frame_rounds_numbers_and_blanks_missing_ones():
    frame = pd.DataFrame({"name": ["a"], "x": [0.123456], "p": [np.nan], "n": [3]})
    table = tables.from_frame("t", frame)
    assert table.header == ("name", "x", "p", "n")
    assert table.rows == [("a", "0.1235", "-", "3")]


# Plots.


def test_write_all_writes_every_plot(run):
    names = [path.name for path in plots.write_all(run)]
    assert names == [f"{name}.png" for name in plots.DRAWINGS]
    for name in names:
        assert (run.path / "plots" / name).read_bytes().startswith(PNG)


def test_plots_without_data_are_left_out(run):
    for name in ("samples.npz", "partition.npz", "uncertainty.json"):
        (run.path / name).unlink()
    silent = run._replace(
        metrics=pd.DataFrame({"event": ["started"]}),
        summary={**run.summary, "hops": []},
    )
    names = [path.stem for path in plots.write_all(silent)]
    assert names == ["accuracy", "energy"]


def test_no_samples_no_plot(run):
    np.savez(run.path / "samples.npz")
    assert plots.samples(run) is None


@pytest.mark.parametrize("name", plots.DRAWINGS)
@pytest.mark.parametrize("synthetic", [True, False])
def test_every_title_warns_of_synthetic_data(tmp_path, name, synthetic):
    run = runs.read(make_run(tmp_path, synthetic_data=synthetic))
    figure = plots.DRAWINGS[name](run)
    assert any("SYNTHETIC DATA" in title for title in titles(figure)) == synthetic


def test_accuracy_draws_percent_and_the_baseline(run):
    (axes,) = plots.accuracy(run).axes
    lines = {line.get_label(): line for line in axes.lines}
    end = [100 * phase["accuracy"]["end"] for phase in run.summary["phases"]]
    assert lines["end"].get_ydata().tolist() == pytest.approx(end)
    assert lines["end: local only"].get_linestyle() == "--"
    assert lines["end: local only"].get_ydata()[0] == pytest.approx(56)
    assert lines["end, own"].get_ydata()[-1] == pytest.approx(97.5)


def test_accuracy_of_a_route_that_turns_twice_goes_on_to_the_right(run):
    for phase, name in zip(
        run.summary["phases"][1:], ("down", "up", "down-2"), strict=False
    ):
        phase.update(cycle=1, phase=name)
    del run.summary["phases"][4:]
    (axes,) = plots.accuracy(run).axes
    named = ["start", "down 1", "up 1", "down-2 1"]
    assert [label.get_text() for label in axes.get_xticklabels()] == named
    assert axes.get_xticks().tolist() == [0, 1, 2, 3]
    assert axes.lines[0].get_xdata().tolist() == [0, 1, 2, 3]


def test_accuracy_leaves_out_what_nobody_has(run):
    for phase in run.summary["phases"]:
        phase["accuracy"].update(end_own=None, end_unseen=None)
    run.summary["baselines"]["local_only"]["end_own"] = None
    (axes,) = plots.accuracy(run).axes
    labels = [line.get_label() for line in axes.lines]
    assert labels == ["cloud", "edge", "end", "end: local only"]


def test_hops_draw_the_error_of_student_and_teachers_on_a_log_axis(run):
    figure = plots.hops(run)
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert list(panels) == [stage for _, stage, _ in HOPS[:4]]
    axes = panels["down/cloud_edge"]
    assert axes.get_yscale() == "log"
    student, teachers = (line.get_ydata()[0] for line in axes.lines[:2])
    assert (student, teachers) == pytest.approx((100 * 0.8 / 2, 1.0))
    assert len(axes.lines) == 4  # two cycles
    for hop in run.summary["hops"]:  # an older run
        del hop["together"]
    assert len(plots.hops(run).axes[0].lines) == 2
    assert {row[1] for row in tables.hops(run.summary).rows} == {"-"}


def test_the_caption_of_hops_says_on_how_many_images_a_curve_is(run):
    plots.write_all(run)
    page = html.write(run).read_text()
    assert f"Students, on up to {PROGRESS_IMAGES:,} validation images" in page


def test_a_hop_without_errors_still_has_a_log_axis(run):
    column = "edge/validation_accuracy"
    perfect = run.metrics.assign(
        **{column: run.metrics[column].where(lambda a: a != a, 1.0)}
    )
    axes = plots.hops(run._replace(metrics=perfect)).axes[0]
    assert set(axes.lines[0].get_ydata()) == {plots.SMALLEST_ERROR}


def test_energy_draws_every_place_with_its_kind(run):
    (axes,) = plots.energy(run).axes
    assert "modelled" in axes.get_title()
    assert axes.get_xscale() == "log"  # 310 mJ beside 310 J
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [*tables.TIERS, *tables.LINKS]
    assert [text.get_text() for text in axes.texts][-1] == "0 J"
    low, high = axes.collections[0].get_segments()[0][:, 0]
    assert (low, high) == pytest.approx((0.6 * 0.31, 1.7 * 0.31))


def test_energy_of_like_sizes_stays_linear(run):
    costs = dict(run.summary["ledger"])
    costs["cloud"] = costs["end"] = costs["edge"]
    costs["link"] = dict.fromkeys(tables.LINKS, costs["edge"])
    same = run._replace(summary={**run.summary, "ledger": costs})
    (axes,) = plots.energy(same).axes
    assert axes.get_xscale() == "linear"


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("samples.npz", plots.samples),
        ("partition.npz", plots.partition),
        ("uncertainty.json", plots.tornado),
    ],
)
def test_a_damaged_file_is_named(run, name, draw):
    for content in (b"cut", b"", b"3"):
        (run.path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} is damaged .*; put it back"):
            draw(run)


def test_samples_show_every_class_in_its_turn(run):
    labels = np.repeat(np.arange(10), 4)  # the images lie in order of their label
    images = np.broadcast_to(labels[:, None, None, None], (40, 4, 4, 1))
    np.savez(run.path / "samples.npz", **{"1/down/cloud_edge": images.astype(np.uint8)})
    (axes,) = plots.samples(run).axes
    (strip,) = axes.images
    assert strip.get_array()[2, 2::6].tolist() == list(range(10))
    assert axes.get_title(loc="left") == "cycle 1, down/cloud_edge"


def test_samples_in_colour_and_fewer_than_a_row(run):
    images = np.full((3, 4, 4, 3), 7, np.uint8)
    np.savez(run.path / "samples.npz", **{"1/up/end_edge": images})
    (axes,) = plots.samples(run).axes
    assert axes.images[0].get_array().shape == (6, 60, 3)


def test_training_has_a_panel_a_stage_and_a_line_a_cycle(run):
    figure = plots.training(run)
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert list(panels)[:2] == ["pretrain", "local_only"]
    assert len(panels) == 7
    assert len(panels["pretrain"].lines) == 1
    assert len(panels["down/cloud_edge"].lines) == 2
    assert panels["local"].lines[0].get_ydata()[0] == pytest.approx(60)
    labels = [text.get_text() for text in figure.legends[0].texts]
    assert sorted(labels) == sorted(set(labels))


# The page.


def test_page_is_self_contained_and_complete(run):
    plots.write_all(run)
    page = html.write(run).read_text()
    assert 'name="viewport"' in page
    assert page.count("data:image/png;base64,") == len(plots.DRAWINGS)
    addresses = re.findall(r'(?:src|href)="(?!data:)', page)
    assert not addresses
    assert "http" not in page
    for text in (
        "88.0 %; local training alone 56.0 % (+32.0 points)",
        "527 J",
        "0123456789abcdef0123456789abcdef01234567 (with uncommitted changes)",
        "python scripts/train.py --config configs/x.py",
        "compile 41.2, train 130.0, evaluate 6.2",
        "jax 0.10.2",
        "alpha",
    ):
        assert text in page
    assert "SYNTHETIC" not in page


def test_page_warns_of_synthetic_data(tmp_path):
    run = runs.read(make_run(tmp_path, synthetic_data=True))
    assert '<div class="banner">SYNTHETIC DATA' in html.write(run).read_text()


def test_page_escapes_what_it_shows(tmp_path):
    run = runs.read(make_run(tmp_path, config={"note": "<script>"}))
    page = html.write(run).read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_page_without_a_baseline(tmp_path):
    run = runs.read(make_run(tmp_path, baselines={}))
    assert "End devices after up 2: 88.0 %</p>" in html.write(run).read_text()


def test_page_of_hops_alone_is_about_their_students(tmp_path):
    made = summary("x", 0)
    up = next(hop for hop in made["hops"] if hop["stage"] == "up/end_edge")
    phases = [made["phases"][0], made["phases"][3]]
    run = runs.read(make_run(tmp_path, phases=phases, hops=[up]))
    page = html.write(run).read_text()
    headline = "Edge after up/end_edge: 98.12 %; its teachers, end, 98.90 % on average"
    assert f"{headline}, 99.10 % together" in page
    assert "Hops: test" in page


def test_page_of_training_alone_says_that_nothing_was_relayed(tmp_path):
    start = summary("x", 0)["phases"][:1]
    run = runs.read(make_run(tmp_path, phases=start, hops=[]))
    page = html.write(run).read_text()
    assert "Before any hop: cloud 98.0 %, edge 10.0 %, end 10.0 %" in page
    assert "Hops: test" not in page


def test_script_writes_reports_again(tmp_path, monkeypatch, capsys):
    path = make_run(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path)])
    assert script.main() == 0
    assert capsys.readouterr().out.strip() == str(path / "report.html")
    assert (path / "plots" / "accuracy.png").exists()


def test_the_script_names_a_damaged_file_and_the_remedy(tmp_path, monkeypatch, capsys):
    path = make_run(tmp_path) / "summary.json"
    path.write_text('{"seed": 0')
    monkeypatch.setattr("sys.argv", ["report.py", str(tmp_path)])
    assert script.main() == 2
    error = capsys.readouterr().err
    assert re.match(r"error: .*summary.json is damaged \(.*; put the file b", error)


def test_script_ends_on_bad_input(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path)])
    assert script.main() == 2
    assert capsys.readouterr().err.startswith("error: no finished run")
