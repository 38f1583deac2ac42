"""Devices and links: converted units, published anchors and errors with a way out."""

import pytest

from ecogen_jax.energy import constants, devices


def test_units_are_converted_to_si():
    tpu = devices.device("tpu_v3")
    assert tpu.achieved_flops.value == pytest.approx(42.3e12)
    assert tpu.achieved_flops.unit == "FLOP/s"
    assert tpu.power_w[:4] == (289, 245, 310, "W")
    assert devices.device("jetson_nano").achieved_flops.value == pytest.approx(
        0.3 * 472e9
    )
    fibre = devices.link("fibre")
    assert fibre.energy_j_per_byte.value == pytest.approx(0.0065 * 3.6e6 / 1e9)
    assert fibre.energy_j_per_byte.unit == "J/B"
    assert fibre.rate_bytes_per_s.value == pytest.approx(1e9 / 8)
    assert fibre.latency_s.value == pytest.approx(0.010)
    assert fibre.latency_s.unit == "s"


def test_wifi_is_the_fixed_network_plus_the_router():
    wifi = devices.link("wifi").energy_j_per_byte.value
    fibre = devices.link("fibre").energy_j_per_byte.value
    assert wifi - fibre == pytest.approx(0.025 * 3.6e6 / 1e9)


@pytest.mark.parametrize(
    ("flops", "device", "megawatt_hours"),
    # Total FLOPs and MWh of Patterson et al. 2021 (arXiv 2104.10350) Table 4.
    [(1.12e23, "tpu_v3", 232), (3.14e23, "v100", 1287)],
)
def test_constants_give_the_published_training_energy(flops, device, megawatt_hours):
    profile = devices.device(device)
    hours = flops / profile.achieved_flops.value / 3600
    energy = hours * profile.power_w.value * constants.pue("cloud").value / 1e6
    assert energy == pytest.approx(megawatt_hours, rel=0.02)


def test_cells_of_a_device():
    assert devices.device_cell("h100", "peak_bf16_flops").value == 989e12
    assert devices.device_cell("h100", "bandwidth").value == 3.35e12
    assert devices.device_cell("t4", "bandwidth").unit == "B/s"
    assert devices.device("v100").embodied == devices.device_cell("v100", "embodied")


def test_a_cell_that_nobody_has_sourced_is_an_error_with_a_way_out():
    message = "'tpu_v2' has no idle_power.*Choose a device.*tpu_v4.*devices.csv"
    with pytest.raises(ValueError, match=message):
        devices.device_cell("tpu_v2", "idle_power")
    with pytest.raises(ValueError, match="'tpu_v5e' has no achieved_flops"):
        devices.device("tpu_v5e")
    assert "tpu_v5e" in constants.names("devices")
    assert "tpu_v5e" not in constants.names("devices", devices.TRAINING)


def test_no_device_draws_less_under_load_than_idle_or_beats_its_peak():
    for name in constants.names("devices", ("idle_power",)):
        assert (
            devices.device_cell(name, "idle_power").high
            < devices.device(name).power_w.value
        )
    for name in constants.names("devices", ("achieved_flops", "peak_bf16_flops")):
        peak = devices.device_cell(name, "peak_bf16_flops").value
        assert 0.15 * peak < devices.device(name).achieved_flops.value < 0.6 * peak


def test_average_and_marginal_view_of_wifi_differ_by_the_published_factor():
    # One GB at 20 Mbit/s: 31.5 Wh by the average, 0.111 Wh by the margin.
    wifi = devices.link("wifi")
    assert 1e9 * wifi.energy_j_per_byte.value / 3600 == pytest.approx(31.5)
    assert 1e9 * wifi.marginal_j_per_byte.value / 3600 == pytest.approx(0.111, rel=0.01)
    for name in constants.names("links"):
        link = devices.link(name)
        assert link.marginal_j_per_byte.value < link.energy_j_per_byte.value / 20


def test_names_list_every_row_once():
    assert constants.names("links") == ("fibre", "wifi", "lte", "5g", "core")
    for name in constants.names("devices", devices.TRAINING):
        assert devices.device(name).name == name
    for name in constants.names("links"):
        assert devices.link(name).name == name


@pytest.mark.parametrize(
    ("lookup", "wrong", "nearest"),
    [(devices.device, "tpu_v33", "tpu_v3"), (devices.link, "wi-fi", "wifi")],
)
def test_unknown_names_get_the_nearest_one(lookup, wrong, nearest):
    with pytest.raises(ValueError, match=f"'{wrong}'.*did you mean '{nearest}'"):
        lookup(wrong)
