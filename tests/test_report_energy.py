"""Tables and plot of parts, totals and intensity; older runs go without."""

import pytest

from ecogen_jax.report import energy, html, plots, runs
from tests.run_folders import make_run, summary

PARTS = {"dynamic_j": 2.0, "idle_j": 0.0, "overhead_j": 0.5, "embodied_g": None}
TOTAL = {
    "energy_j": {"value": 3000.0, "low": 2000.0, "high": 5000.0},
    "carbon_g": {"value": 0.4, "low": 0.2, "high": 0.6},
}
NEW = {
    "total": TOTAL,
    "sci": {
        "operational_g": 0.4,
        "embodied_g": 0.1,
        "embodied_unknown": ["end"],
        "includes_idle": False,
        "cycles": 2,
        "inferences": 1000,
        "g_per_cycle": 0.25,
        "g_per_inference": 0.0005,
    },
    "host_energy": {
        "measured_j": 12.0,
        "modelled_j": 24.0,
        "ratio": 0.5,
        "kind": "measured",
        "reason": "measured by RAPL",
    },
}


def new_summary():
    made = summary("x", 0, **NEW)
    costs = made["ledger"]
    for cost in (costs["cloud"], costs["edge"], costs["end"], *costs["link"].values()):
        cost |= PARTS | {"water_l": 0.001}
    return made


@pytest.fixture
def run(tmp_path):
    return runs.read(make_run(tmp_path, ledger=new_summary()["ledger"], **NEW))


def test_parts_have_a_dash_where_the_making_is_unknown():
    table = energy.parts(new_summary())
    assert [row[0] for row in table.rows] == [
        *("cloud", "edge", "end", "cloud_edge", "edge_end")
    ]
    assert table.rows[0][1:] == ("2 J", "0 J", "500 mJ", "-", "1 mL")


def test_totals_and_intensity_and_host():
    made = new_summary()
    assert energy.totals(made["total"]).rows == [
        ("energy", "3 kJ", "2 kJ", "5 kJ"),
        ("CO2e location", "400 mg", "200 mg", "600 mg"),
    ]
    intensity = energy.intensity(made)
    assert intensity.rows[1] == ("inference", "1000", "400 mg", "100 mg", "500 µg")
    assert intensity.title.endswith("without waiting parties, making of end")
    assert energy.host(made).rows == [
        ("measured", "12 J", "24 J", "0.50", "measured by RAPL")
    ]


def test_a_host_that_was_not_measured_has_no_ratio():
    used = NEW["host_energy"] | {"measured_j": None, "ratio": None}
    row = energy.host({"host_energy": used}).rows[0]
    assert row[1:4] == ("-", "24 J", "-")


def test_an_older_run_has_none_of_them(tmp_path):
    path = make_run(tmp_path)
    (path / "uncertainty.json").unlink()
    old = runs.read(path)
    assert energy.all_tables(old.summary) == []
    assert plots.tornado(old) is None
    assert html.write(old).exists()


def test_the_tornado_shows_the_first_inputs_from_the_top(run):
    (axes,) = plots.tornado(run).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"device{number} power_w" for number in range(plots.MAX_BARS)]
    assert axes.yaxis_inverted()
    widths = [bar.get_width() for bar in axes.patches[: len(labels)]]
    assert widths == pytest.approx([0.2 - n / 500 for n in range(len(labels))])


def test_the_page_has_the_tables_and_the_plot(run):
    plots.write_all(run)
    page = html.write(run).read_text()
    assert "Parts of the ledger" in page
    assert "without waiting parties" in page
    assert "tornado" in page
