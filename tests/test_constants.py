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


def test_units_are_converted_to_si():
    tpu = constants.device("tpu_v3")
    assert tpu.achieved_flops.value == pytest.approx(42.3e12)
    assert tpu.achieved_flops.unit == "FLOP/s"
    assert tpu.power_w[:4] == (289, 245, 310, "W")
    assert constants.device("jetson_nano").achieved_flops.value == pytest.approx(
        0.3 * 472e9
    )
    fibre = constants.link("fibre")
    assert fibre.energy_j_per_byte.value == pytest.approx(0.0065 * 3.6e6 / 1e9)
    assert fibre.energy_j_per_byte.unit == "J/B"
    assert fibre.rate_bytes_per_s.value == pytest.approx(1e9 / 8)
    assert fibre.latency_s.value == pytest.approx(0.010)
    assert fibre.latency_s.unit == "s"


def test_wifi_is_the_fixed_network_plus_the_router():
    wifi = constants.link("wifi").energy_j_per_byte.value
    fibre = constants.link("fibre").energy_j_per_byte.value
    assert wifi - fibre == pytest.approx(0.025 * 3.6e6 / 1e9)


@pytest.mark.parametrize(
    ("flops", "device", "megawatt_hours"),
    # Total FLOPs and MWh of Patterson et al. 2021 (arXiv 2104.10350) Table 4.
    [(1.12e23, "tpu_v3", 232), (3.14e23, "v100", 1287)],
)
def test_constants_give_the_published_training_energy(flops, device, megawatt_hours):
    profile = constants.device(device)
    hours = flops / profile.achieved_flops.value / 3600
    energy = hours * profile.power_w.value * constants.pue("cloud").value / 1e6
    assert energy == pytest.approx(megawatt_hours, rel=0.02)


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


def test_cells_of_a_device():
    assert constants.device_cell("h100", "peak_bf16_flops").value == 989e12
    assert constants.device_cell("h100", "bandwidth").value == 3.35e12
    assert constants.device_cell("t4", "bandwidth").unit == "B/s"
    assert constants.device("v100").embodied == constants.device_cell(
        "v100", "embodied"
    )


def test_a_cell_that_nobody_has_sourced_is_an_error_with_a_way_out():
    message = "'t4' has no idle_power.*Choose a device that has it.*tpu_v4.*devices.csv"
    with pytest.raises(ValueError, match=message):
        constants.device_cell("t4", "idle_power")
    with pytest.raises(ValueError, match="'tpu_v5e' has no achieved_flops"):
        constants.device("tpu_v5e")
    assert "tpu_v5e" in constants.names("devices")
    assert "tpu_v5e" not in constants.names("devices", constants.TRAINING)


def test_no_device_draws_less_under_load_than_idle_or_beats_its_peak():
    for name in constants.names("devices", ("idle_power",)):
        assert (
            constants.device_cell(name, "idle_power").high
            < constants.device(name).power_w.value
        )
    for name in constants.names("devices", ("achieved_flops", "peak_bf16_flops")):
        peak = constants.device_cell(name, "peak_bf16_flops").value
        assert 0.15 * peak < constants.device(name).achieved_flops.value < 0.6 * peak


def test_average_and_marginal_view_of_wifi_differ_by_the_published_factor():
    # One GB at 20 Mbit/s: 31.5 Wh by the average, 0.111 Wh by the margin.
    wifi = constants.link("wifi")
    assert 1e9 * wifi.energy_j_per_byte.value / 3600 == pytest.approx(31.5)
    assert 1e9 * wifi.marginal_j_per_byte.value / 3600 == pytest.approx(0.111, rel=0.01)
    for name in constants.names("links"):
        link = constants.link(name)
        assert link.marginal_j_per_byte.value < link.energy_j_per_byte.value / 20


def test_the_grid_covers_the_world_and_says_of_which_year():
    assert len(constants.names("grid")) > 150
    frame = constants.table("grid")
    assert set(frame["date"]) == {"2023", "2024"}
    assert frame["source"].str.contains("Ember.*CC-BY-4.0").all()


def test_clean_grids_have_the_wider_interval():
    for name in constants.names("grid"):
        grid = constants.grid(name)
        floor = 0.5 if grid.value < 100 else 0.8
        assert grid.low == pytest.approx(floor * grid.value, abs=0.01)


def test_names_list_every_row_once():
    assert constants.names("links") == ("fibre", "wifi", "lte", "5g", "core")
    tiers = {"cloud", "edge", "end"}
    assert set(constants.names("pue")) == set(constants.names("lifetime")) == tiers
    for name in constants.names("devices", constants.TRAINING):
        assert constants.device(name).name == name
    for name in constants.names("links"):
        assert constants.link(name).name == name


@pytest.mark.parametrize(
    ("lookup", "wrong", "nearest"),
    [
        (constants.device, "tpu_v33", "tpu_v3"),
        (constants.link, "wi-fi", "wifi"),
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
        constants.link("carrier pigeon")
