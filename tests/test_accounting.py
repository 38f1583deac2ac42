"""Accounting: closed forms, properties over random inputs, and refused nonsense."""

import math
import pathlib

import hypothesis
import pandas as pd
import pytest
from hypothesis import configuration, given
from hypothesis import strategies as st

from ecogen_jax.energy import accounting, audit
from scripts import audit as script

CACHE = pathlib.Path(__file__).resolve().parent.parent / ".cache"
configuration.set_hypothesis_home_dir(CACHE / "hypothesis")
# The machine decides how long an example takes; the same examples on every run.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")

amounts = st.floats(min_value=1e-3, max_value=1e9)
growth = st.floats(min_value=1.001, max_value=10)
pues = st.floats(min_value=1, max_value=3)
intensities = st.floats(min_value=1, max_value=2000)
fractions = st.floats(min_value=0.01, max_value=1)
units = st.sampled_from([tuple(table) for table in accounting.UNITS.values()])


def test_energy_is_hours_times_watts_times_pue():
    # Two chips of 500 W for an hour behind a PUE of 1.2.
    assert accounting.energy_kwh(2, 500, 1.2) == pytest.approx(1.2)


def test_carbon_location_and_market():
    assert accounting.carbon_g(3, 400) == 1200
    assert accounting.carbon_g(3, 0) == 0
    assert accounting.market_g(1200, 0.75) == 300


def test_embodied_share_is_used_hours_over_hours_of_use_in_a_life():
    # Half a life in use, half of those hours taken: half the carbon.
    assert accounting.embodied_kg(
        100, hours=250, lifetime_h=1000, utilisation=0.5
    ) == pytest.approx(50)


def test_carbon_per_area_charges_the_bad_dies_to_the_good():
    assert accounting.carbon_per_area_g(500, 2, 100, 400, 0.5) == 3000


def test_sci_and_water():
    assert accounting.sci_g(90, 10, 50) == 2
    assert accounting.water_l(2, 1.8) == pytest.approx(3.6)


def test_units_against_their_definitions():
    assert accounting.convert(1, "kWh", "J") == 3.6e6
    assert accounting.convert(1, "MWh", "kWh") == 1000
    assert accounting.convert(1, "lb", "g") == 453.59237
    assert accounting.convert(2.5, "t", "kg") == 2500


@given(amounts, units, st.data())
def test_conversion_round_trips(amount, same, data):
    source, target = (data.draw(st.sampled_from(same)) for _ in range(2))
    there = accounting.convert(amount, source, target)
    assert accounting.convert(there, target, source) == pytest.approx(amount)


@given(amounts, amounts, amounts, pues)
def test_energy_adds_up_over_phases(first_h, second_h, watts, pue):
    parts = [accounting.energy_kwh(hours, watts, pue) for hours in (first_h, second_h)]
    whole = accounting.energy_kwh(first_h + second_h, watts, pue)
    assert sum(parts) == pytest.approx(whole)


@given(amounts, amounts, intensities)
def test_carbon_adds_up_over_phases(first, second, intensity):
    parts = [accounting.carbon_g(energy, intensity) for energy in (first, second)]
    whole = accounting.carbon_g(first + second, intensity)
    assert sum(parts) == pytest.approx(whole)


@given(amounts, amounts, pues, growth)
def test_energy_scales_with_hours_and_watts(hours, watts, pue, factor):
    once = accounting.energy_kwh(hours, watts, pue)
    longer = accounting.energy_kwh(hours * factor, watts, pue)
    stronger = accounting.energy_kwh(hours, watts * factor, pue)
    assert longer == pytest.approx(factor * once)
    assert stronger == pytest.approx(factor * once)


POSITIVE = {
    "energy_kwh": (accounting.energy_kwh, (amounts, amounts, pues), ""),
    "carbon_g": (accounting.carbon_g, (amounts, st.floats(1, 199)), ""),
    "embodied_kg": (
        accounting.embodied_kg,
        (amounts, amounts, amounts.filter(lambda hours: hours >= 1), st.just(0.1)),
        "++--",
    ),
    "carbon_per_area_g": (
        accounting.carbon_per_area_g,
        (st.floats(1, 199), amounts, amounts, amounts, st.just(0.1)),
        "++++-",
    ),
    "sci_g": (accounting.sci_g, (amounts, amounts, amounts), "++-"),
    "water_l": (accounting.water_l, (amounts, amounts), ""),
}


@pytest.mark.parametrize("name", POSITIVE)
@given(st.data())
def test_monotone_in_every_input(name, data):
    function, ranges, signs = POSITIVE[name]
    arguments = [data.draw(values) for values in ranges]
    base = function(*arguments)
    factor = data.draw(growth)
    for place, sign in enumerate(signs or "+" * len(arguments)):
        grown = [*arguments]
        grown[place] *= factor
        moved = function(*grown) - base
        # A small term may drown in a large one, but never turn the sign.
        assert moved >= 0 if sign == "+" else moved < 0


@given(amounts, fractions)
def test_a_larger_contracted_share_leaves_less(location, share):
    assert accounting.market_g(location, share) < location


@pytest.mark.parametrize(
    ("call", "field", "value", "remedy"),
    [
        (lambda: accounting.energy_kwh(-1, 400, 1.1), "chip_hours", "-1", "hours"),
        (lambda: accounting.energy_kwh(1, -400, 1.1), "power_w", "-400", "in W"),
        (lambda: accounting.energy_kwh(1, 400, 0.9), "pue", "0.9", "such as 1.1"),
        (lambda: accounting.energy_kwh(1, math.nan, 1), "power_w", "nan", "in W"),
        (lambda: accounting.energy_kwh(math.inf, 1, 1), "chip_hours", "inf", "hours"),
        (lambda: accounting.check_power(0.4, 400), "power_w", "0.4", "kW"),
        (lambda: accounting.check_power(4e5, 400), "power_w", "400000", "mW"),
        (lambda: accounting.carbon_g(1, 0.385), "intensity", "0.385", "times 1000"),
        (lambda: accounting.carbon_g(1, 385000), "intensity", "385000", "g/kWh"),
        (lambda: accounting.carbon_g(-1, 385), "energy_kwh", "-1", "in kWh"),
        (lambda: accounting.market_g(1, 30), "contracted_share", "30", "per cent"),
        (lambda: accounting.embodied_kg(1, 1, 1, 85), "utilisation", "85", "per cent"),
        (lambda: accounting.embodied_kg(1, 1, 0, 1), "lifetime_h", "0", "8760"),
        (
            lambda: accounting.carbon_per_area_g(400, -1, 1, 1, 0.9),
            "energy_kwh_per_cm2",
            "-1",
            "kWh/cm2",
        ),
        (lambda: accounting.sci_g(-5, 1, 1), "operational_g", "-5", "offsets"),
        (lambda: accounting.sci_g(5, 1, 0), "functional_units", "0", "served"),
        (lambda: accounting.convert(1, "kW", "J"), "source", "kW", "kWh"),
        (lambda: accounting.convert(1, "kWh", "g"), "target", "'g'", "intensity"),
    ],
)
def test_bad_input_names_field_value_and_remedy(call, field, value, remedy):
    with pytest.raises(ValueError, match=field) as error:
        call()
    assert value in str(error.value)
    assert remedy in str(error.value)


def test_powers_near_the_device_pass():
    for watts in (0, 20, 400, 812.5):
        accounting.check_power(watts, 400)


GOOD = {
    "name": "7B",
    "device": "a100",
    "chip_hours": 82432.0,
    "power_w": 400.0,
    "pue": 1.1,
    "intensity_g_per_kwh": 385.0,
    "energy_kwh": 36270.0,
    "carbon_kg": 13964.0,
}


def findings(**changes):
    return audit.audit(pd.DataFrame([GOOD | changes]))


def test_audit_passes_a_table_that_agrees_with_itself():
    assert findings() == []


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"energy_kwh": 32973.0, "carbon_kg": 12695.0}, "energy_kwh", "PUE was left"),
        ({"energy_kwh": 39897.0, "carbon_kg": 15360.0}, "energy_kwh", "counted twice"),
        ({"energy_kwh": 36.27, "carbon_kg": 13.964}, "energy_kwh", "too large"),
        ({"carbon_kg": 13964000.0}, "carbon_kg", "too small"),
        ({"carbon_kg": 30785.0}, "carbon_kg", "pounds"),
        ({"carbon_kg": 12.9}, "carbon_kg", "times what its inputs give"),
        ({"power_w": 0.4}, "inputs", "kW instead of W"),
        ({"pue": 0.9}, "inputs", "pue is 0.9"),
        ({"chip_hours": -5.0}, "inputs", "chip_hours is -5"),
        ({"device": "abacus"}, "inputs", "abacus"),
    ],
)
def test_audit_names_the_contradiction(changes, field, reason):
    (finding,) = findings(**changes)
    assert (finding.name, finding.field) == ("7B", field)
    assert reason in finding.reason


def test_audit_judges_carbon_by_the_energy_that_the_table_claims():
    # A wrong energy is one finding, not two.
    assert [f.field for f in findings(energy_kwh=40000.0, carbon_kg=15400.0)] == [
        "energy_kwh"
    ]


@pytest.mark.parametrize(("pue", "blamed"), [(1.0, False), (1.003, True)])
def test_audit_blames_a_pue_only_where_there_is_one(pue, blamed):
    row = {"chip_hours": 1000.0, "power_w": 400.0, "pue": pue}
    row["energy_kwh"] = 400.0 * pue * 1.003
    (finding,) = audit.audit(pd.DataFrame([row]), tolerance=1e-3)
    assert finding.reason.startswith("1.003 times what its inputs give")
    assert ("PUE" in finding.reason) == blamed


def test_audit_looks_up_a_region_and_refuses_an_unknown_one():
    row = {"region": "France", "energy_kwh": 1000.0, "carbon_kg": 44.18}
    assert audit.audit(pd.DataFrame([row])) == []
    (finding,) = audit.audit(pd.DataFrame([row | {"region": "Atlantis"}]))
    assert finding.name == "row 1"
    assert "Atlantis" in finding.reason


def test_audit_names_a_device_that_is_a_number_and_a_table_without_rows():
    (finding,) = findings(device=100)
    assert "'100'" in finding.reason
    with pytest.raises(ValueError, match="no rows"):
        audit.audit(pd.DataFrame(columns=["chip_hours"]))


def test_audit_judges_a_power_without_a_pue():
    row = {"device": "a100", "power_w": 0.4, "chip_hours": 10.0, "energy_kwh": 4.0}
    (finding,) = audit.audit(pd.DataFrame([row]))
    assert "kW instead of W" in finding.reason


@pytest.mark.parametrize("pue", [0.0, 0.9])
def test_audit_refuses_a_pue_below_one_in_any_row(pue):
    row = {"energy_kwh": 1000.0, "intensity_g_per_kwh": 400.0, "carbon_kg": 380.0}
    (finding,) = audit.audit(pd.DataFrame([row | {"pue": pue}]))
    assert finding.field == "inputs"
    assert finding.reason.startswith(f"pue is {pue:g}; allowed: at least 1")


def test_audit_refuses_a_column_that_it_does_not_know():
    with pytest.raises(ValueError, match=r"power_kw.*power_w"):
        findings(power_kw=0.4)
    with pytest.raises(ValueError, match="holds text"):
        findings(pue="high")


@pytest.mark.parametrize(
    ("line", "status", "says"),
    [
        ("a,82432,400,1.1,36270", 0, "1 rows, 0 contradictions"),
        ("a,82432,400,1.1,32973", 1, "PUE was left out"),
        ("a [7B] [/b],82432,400,1.1,32973", 1, " a [7B] [/b] "),
    ],
)
def test_audit_script(tmp_path, monkeypatch, capsys, line, status, says):
    file = tmp_path / "jobs.csv"
    file.write_text(f"name,chip_hours,power_w,pue,energy_kwh\n{line}\n")
    monkeypatch.setattr("sys.argv", ["audit.py", str(file)])
    monkeypatch.setenv("COLUMNS", "200")
    assert script.main() == status
    assert says in capsys.readouterr().out


@pytest.mark.parametrize("names", ["ab", "12"])
@pytest.mark.parametrize(
    ("surplus", "status", "says"),
    [("", 1, "227.2 times what"), ("7", 2, "more fields than its header")],
)
def test_audit_reads_the_right_columns_of_rows_longer_than_the_header(
    tmp_path, monkeypatch, capsys, names, surplus, status, says
):
    file, (first, second) = tmp_path / "jobs.csv", names
    rows = [f"{first},100,400,1.1,9999,{surplus}", f"{second},100,400,1,40,{surplus}"]
    file.write_text("\n".join(["name,chip_hours,power_w,pue,energy_kwh", *rows, ""]))
    monkeypatch.setattr("sys.argv", ["audit.py", str(file)])
    monkeypatch.setenv("COLUMNS", "200")
    assert script.main() == status
    printed = capsys.readouterr()
    assert says in printed.out + printed.err


def test_audit_script_reports_a_file_that_it_cannot_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["audit.py", str(tmp_path / "none.csv")])
    assert script.main() == 2
    error = capsys.readouterr().err
    assert "there is no file" in error
    assert error.count("none.csv") == 1
    assert "give a CSV with one job a row" in error
