"""Every constant has an interval, a unit, a source, a date and a kind."""

import pytest

from ecogen_jax.energy import constants

TABLES = ("devices", "links", "grid", "pue", "lifetime", "wue")
KINDS = {"measured", "modelled", "assumed"}


@pytest.mark.parametrize("stem", TABLES)
def test_no_number_without_source_date_unit_and_kind(stem):
    frame = constants.table(stem)
    for column in ("name", "quantity", "unit", "source", "date", "kind"):
        assert frame[column].astype(str).str.strip().ne("").all(), column
    assert not frame.isna().any(axis=None)
    assert set(frame["kind"]) <= KINDS
    assert frame["date"].str.match(r"^20\d\d(-\d\d)?$").all()
    assert frame["source"].str.len().min() > 20


@pytest.mark.parametrize("stem", TABLES)
def test_values_are_positive_and_inside_their_intervals(stem):
    frame = constants.table(stem)
    assert (frame["low"] > 0).all()
    assert frame["value"].between(frame["low"], frame["high"]).all()
    assert not frame.duplicated(["name", "quantity"]).any()


@pytest.mark.parametrize("stem", TABLES)
def test_what_says_assumed_in_its_kind_says_so_in_its_source_too(stem):
    # Facts such as a nameplate, taken as the power under load, name a datasheet.
    frame = constants.table(stem)
    assumed = frame[frame["kind"] == "assumed"]["source"]
    assert assumed.str.contains("assumed|datasheet").all()


def test_grid_and_pue():
    world = constants.grid("World")
    assert (world.value, world.unit, world.date) == (472.94, "g/kWh", "2024")
    assert constants.grid("France").high == 67.5
    assert constants.pue("cloud").value == 1.10
    assert constants.pue("end").value == 1.0
    assert constants.pue("end").unit == "1"


def test_lifetime_and_water():
    assert constants.lifetime("cloud").value == pytest.approx(4 * 365.25 * 86400)
    assert constants.lifetime("cloud").unit == "s"
    assert constants.wue("google")[:4] == (1.15, 0.92, 1.38, "L/kWh")


def test_the_grid_covers_the_world_and_says_of_which_year():
    assert len(constants.names("grid")) > 150
    frame = constants.table("grid")
    assert frame["date"].str.fullmatch(r"20\d\d").all()
    assert frame["source"].str.contains("Ember.*CC-BY-4.0").all()


def test_clean_grids_have_the_wider_interval():
    for name in constants.names("grid"):
        grid = constants.grid(name)
        floor = 0.5 if grid.value < 100 else 0.8
        assert grid.low == pytest.approx(floor * grid.value, abs=0.01)


@pytest.mark.parametrize(
    ("lookup", "wrong", "nearest"),
    [
        (constants.grid, "world", "World"),
        (constants.pue, "clod", "cloud"),
        (constants.wue, "microsft", "microsoft"),
    ],
)
def test_unknown_names_get_the_nearest_one(lookup, wrong, nearest):
    with pytest.raises(ValueError, match=f"'{wrong}'.*did you mean '{nearest}'"):
        lookup(wrong)


def test_a_name_like_no_other_gets_the_whole_list():
    with pytest.raises(ValueError, match="known: fibre, wifi, lte"):
        constants.lookup("links", "carrier pigeon")


def test_a_lookup_is_in_si_and_names_each_quantity():
    router = constants.lookup("links", "wifi")
    assert set(router) >= {"rate_bytes_per_s", "latency_s", "energy_j_per_byte"}
    assert router["latency_s"].value == pytest.approx(0.005)
    assert router["latency_s"].unit == "s"


def test_tiers_have_their_own_site_and_lifetime():
    tiers = {"cloud", "edge", "end"}
    assert set(constants.names("pue")) == set(constants.names("lifetime")) == tiers


def test_a_unit_that_is_in_no_list_is_refused_by_name(monkeypatch):
    frame = constants.table("devices")
    mine = frame[frame["name"] == "t4"].assign(name="mine", unit="PFLOP/s")
    monkeypatch.setattr(constants, "table", lambda stem: mine)
    message = r"unit 'PFLOP/s' of \w+ of 'mine' in table devices is .* one of .*GFLOP/s"
    with pytest.raises(ValueError, match=message):
        constants.lookup("devices", "mine")


def test_a_comma_without_quotes_names_its_file(tmp_path, monkeypatch):
    (tmp_path / "tables").mkdir()
    broken = tmp_path / "tables" / "pue.csv"
    broken.write_text("name,quantity,source\nmine,pue,my own meter, 2026\n2,3,4,5,6\n")
    monkeypatch.setattr(constants.resources, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=r"pue\.csv cannot be read .* double quotes"):
        constants.table.__wrapped__("pue")
