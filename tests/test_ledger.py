"""The ledger adds up, keeps its intervals and ignores the host's clock."""

import json

import numpy as np
import pytest

from ecogen_jax.energy import devices, ledger, rates

RATES = rates.rates(
    devices={"cloud": "tpu_v3", "edge": "t4", "end": "jetson_nano"},
    links={"cloud_edge": "fibre", "edge_end": "wifi"},
    country="World",
    contracted_share={"cloud": 0.75, "edge": 0.0, "end": 1.0},
)


WAITING = rates.rates(
    devices={"cloud": "tpu_v4", "edge": "server_cpu", "end": "raspberry_pi_4"},
    links={"cloud_edge": "fibre", "edge_end": "wifi"},
    country="World",
    contracted_share={"cloud": 0.0, "edge": 0.0, "end": 0.0},
    link_view="marginal",
    include_idle=True,
    cloud_water="google",
)


def wait(tier, wait_s=5.0, waits_for="edge"):
    where = {"cycle": 1, "phase": "up", "stage": "up", "waits_for": waits_for}
    return ledger.idle_entry(WAITING, tier=tier, wait_s=wait_s, **where)


def compute(tier="cloud", flops=1e15, host_s=2.0, **changes):
    where = {"cycle": 1, "phase": "down", "stage": "down/cloud_edge", **changes}
    return ledger.compute_entry(RATES, tier=tier, flops=flops, host_s=host_s, **where)


def transfer(link="edge_end", up_bytes=0, down_bytes=0, crossings=1):
    return ledger.transfer_entry(
        RATES,
        cycle=1,
        phase="up",
        stage="up/edge_end",
        link=link,
        up_bytes=up_bytes,
        down_bytes=down_bytes,
        crossings=crossings,
    )


def test_compute_energy_and_carbon_by_hand():
    entry = compute()
    seconds = 1e15 / 42.3e12
    joules = seconds * 289 * 1.10
    assert entry.device_s == pytest.approx(seconds)
    assert entry.energy_j == pytest.approx(joules)
    assert entry.carbon_location_g == pytest.approx(joules / 3.6e6 * 472.94)
    assert entry.carbon_market_g == pytest.approx(0.25 * entry.carbon_location_g)
    assert (entry.place, entry.up_bytes, entry.down_bytes) == ("cloud", 0, 0)
    assert entry.kind == "modelled"


def test_compute_interval_is_spanned_by_the_corners():
    entry = compute()
    low, high = 1e15 / 48.0e12 * 245 * 1.09, 1e15 / 34.4e12 * 310 * 1.12
    grid = RATES.intensity
    assert entry.energy_low_j == pytest.approx(low)
    assert entry.energy_high_j == pytest.approx(high)
    assert entry.carbon_location_low_g == pytest.approx(low / 3.6e6 * grid.low)
    assert entry.carbon_location_high_g == pytest.approx(high / 3.6e6 * grid.high)


def test_contracts_of_one_tier_leave_the_others_alone():
    assert compute("edge").carbon_market_g == compute("edge").carbon_location_g > 0
    assert compute("end").carbon_market_g == 0 < compute("end").carbon_location_g


def test_the_seconds_of_the_host_never_enter():
    fast, slow = compute(host_s=0.1), compute(host_s=1000.0)
    assert slow.host_s == 1000.0
    assert slow._replace(host_s=0.1) == fast


def test_energy_is_proportional_to_work_and_adds_over_phases():
    assert compute(flops=3e15).energy_j == pytest.approx(3 * compute().energy_j)
    parts = [compute(flops=1e15), compute(flops=2e15, phase="up", stage="up")]
    whole = ledger.summarise([compute(flops=3e15)])["cloud"]
    halves = ledger.summarise(parts)["cloud"]
    for field in ("flops", "device_s", "energy_j", "energy_high_j", "carbon_market_g"):
        assert halves[field] == pytest.approx(whole[field])


def test_transfer_energy_and_time_by_hand():
    entry = transfer("cloud_edge", up_bytes=1_000_000)
    per_byte = 0.0065 * 3.6e6 / 1e9
    assert entry.energy_j == pytest.approx(1e6 * per_byte)
    assert entry.energy_low_j == pytest.approx(1e6 * 0.001 * 3.6e6 / 1e9)
    assert entry.energy_high_j == pytest.approx(1e6 * 0.0089 * 3.6e6 / 1e9)
    assert entry.device_s == pytest.approx(0.010 + 1e6 / 125e6)
    assert entry.carbon_location_g == pytest.approx(1e6 * per_byte / 3.6e6 * 472.94)


def test_parts_add_up_to_the_energy():
    for entry in (compute(), compute("end"), transfer(up_bytes=9), wait("edge")):
        parts = entry.dynamic_j + entry.idle_j + entry.overhead_j
        assert entry.energy_j == pytest.approx(parts)
    busy = compute()
    assert busy.overhead_j == pytest.approx(0.10 * busy.dynamic_j)
    assert busy.idle_j == transfer(up_bytes=9).overhead_j == 0


def test_waiting_by_hand():
    entry = wait("end", wait_s=100.0, waits_for="cloud")
    power = devices.device_cell("raspberry_pi_4", "idle_power")
    speed = devices.device("tpu_v4").achieved_flops
    longest, shortest = (100 * speed.value / end for end in (speed.low, speed.high))
    assert entry.idle_j == entry.energy_j == pytest.approx(100 * power.value)
    assert entry.energy_low_j == pytest.approx(shortest * power.low)
    assert entry.energy_high_j == pytest.approx(longest * power.high * 1.2)
    assert (entry.flops, entry.dynamic_j, entry.device_s) == (0, 0, 0)
    assert (entry.place, entry.waits_for) == ("end", "cloud")
    where = {"cycle": 1, "phase": "up", "stage": "up", "wait_s": 1.0}
    with pytest.raises(ValueError, match=r"no idle_power of edge.*include_idle=True"):
        ledger.idle_entry(RATES, tier="edge", waits_for="end", **where)
    with pytest.raises(ValueError, match="waits_for"):
        ledger.idle_entry(WAITING, tier="edge", waits_for="", **where)


def test_making_a_device_is_shared_out_over_its_life():
    entry = compute()
    lifetime_s = 4 * 365.25 * 86400
    grams = 150 * 1000 * entry.device_s / lifetime_s
    assert entry.embodied_g == pytest.approx(grams)
    waited = wait("cloud", wait_s=7.0)
    assert waited.embodied_g == pytest.approx(150 * 1000 * 7 / lifetime_s)
    assert transfer(up_bytes=9).embodied_g == 0


def test_what_nobody_knows_is_not_nothing():
    entry = wait("end")
    assert devices.device("raspberry_pi_4").embodied is None
    assert entry.embodied_g is None
    assert ledger.summarise([entry])["end"]["embodied_g"] is None
    assert ledger.summarise([entry])["cloud"]["embodied_g"] == 0


def test_water_evaporates_for_the_devices_of_the_cloud_alone():
    entry = wait("cloud", wait_s=3600.0)
    assert entry.water_l == pytest.approx(entry.idle_j / 3.6e6 * 1.15)
    assert wait("edge").water_l == compute().water_l == 0


def test_the_marginal_view_takes_the_marginal_joules_of_a_byte():
    marginal = WAITING.link_energy["edge_end"]
    assert marginal == devices.link("wifi").marginal_j_per_byte
    assert marginal.value < RATES.link_energy["edge_end"].value / 100


def test_links_are_uncontracted():
    entry = transfer(up_bytes=10**9)
    assert entry.carbon_market_g == entry.carbon_location_g > 0


def test_each_crossing_has_its_own_latency():
    link = devices.link("wifi")
    latency, rate = link.latency_s.value, link.rate_bytes_per_s.value
    up = transfer(up_bytes=500)
    assert up.device_s == pytest.approx(latency + 500 / rate)
    both = transfer(up_bytes=500, down_bytes=500, crossings=2 * 60)
    assert both.device_s == pytest.approx(120 * latency + 1000 / rate)
    assert transfer(crossings=0).device_s == 0
    assert (up.up_bytes, up.down_bytes) == (500, 0)


def test_summary_has_every_tier_and_link_and_zeros_where_nothing_happened():
    summary = ledger.summarise([compute(), transfer(up_bytes=7, down_bytes=5)])
    assert set(summary) == {"cloud", "edge", "end", "link"}
    assert set(summary["link"]) == {"cloud_edge", "edge_end"}
    sums = {"host_s", "device_s", "energy_j", "energy_low_j", "energy_high_j"}
    sums |= {"carbon_location_g", "carbon_market_g", "kind"}
    sums |= {"dynamic_j", "idle_j", "overhead_j", "embodied_g", "water_l"}
    assert set(summary["cloud"]) == sums | {"flops"}
    assert set(summary["link"]["edge_end"]) == sums | {"up_bytes", "down_bytes"}
    assert summary["link"]["edge_end"]["up_bytes"] == 7
    assert summary["link"]["edge_end"]["down_bytes"] == 5
    assert summary["cloud"]["host_s"] == 2.0
    idle = [summary["edge"], summary["end"], summary["link"]["cloud_edge"]]
    for place in idle:
        assert place.pop("kind") == "modelled"
        assert set(place.values()) == {0}


def test_summary_never_hides_a_mixture_of_kinds():
    measured = compute()._replace(kind="measured")
    assert ledger.summarise([measured])["cloud"]["kind"] == "measured"
    mixed = ledger.summarise([measured, compute()])["cloud"]["kind"]
    assert mixed == "measured+modelled"


def test_json_round_trip_and_frame():
    entries = [compute(), transfer(up_bytes=7)]
    text = json.dumps(ledger.to_json(entries))
    assert ledger.from_json(json.loads(text)) == entries
    frame = ledger.to_frame(entries)
    assert list(frame.columns) == list(ledger.Entry._fields)
    assert frame["energy_j"].sum() == pytest.approx(sum(e.energy_j for e in entries))
    assert list(ledger.to_frame([]).columns) == list(ledger.Entry._fields)


def test_array_scalars_become_plain_numbers():
    json.dumps(ledger.to_json([compute(flops=np.float32(8.0))]))
    json.dumps(ledger.to_json([transfer(up_bytes=np.int64(8))]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compute(flops=-1.0), "flops is -1.0"),
        (lambda: compute(flops=float("nan")), "flops is nan"),
        (lambda: compute(host_s=-3.0), "host_s is -3.0"),
        (lambda: transfer(up_bytes=-8), "up_bytes is -8"),
        (lambda: compute(tier="fog"), "tier 'fog': allowed are cloud, edge, end"),
        (lambda: transfer(link="wifi"), "link 'wifi': allowed are cloud_edge"),
    ],
)
def test_bad_amounts_and_places_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


BARE = {"cloud": "tpu_v2", "edge": "t4", "end": "raspberry_pi_4"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": {"cloud": "tpu_v3"}}, "devices has the keys.*cloud, edge, end"),
        ({"links": {"cloud_edge": "fibre"}}, "links has the keys"),
        ({"country": "Wrold"}, "did you mean 'World'"),
        ({"link_view": "mean"}, "link_view 'mean': allowed are average, marginal"),
        ({"cloud_water": "gogle"}, "did you mean 'google'"),
        (
            {"include_idle": True, "devices": BARE},
            "device 'tpu_v2' has no idle_power.*tpu_v4",
        ),
        (
            {"contracted_share": {"cloud": 0.0, "edge": 1.5, "end": 0.0}},
            "edge is 1.5: allowed is 0",
        ),
    ],
)
def test_bad_rates_are_refused(changes, message):
    good = {
        "devices": {"cloud": "a100", "edge": "t4", "end": "raspberry_pi_4"},
        "links": {"cloud_edge": "fibre", "edge_end": "lte"},
        "country": "France",
        "contracted_share": {"cloud": 0.0, "edge": 0.0, "end": 0.0},
    }
    rates.rates(**good)
    with pytest.raises(ValueError, match=message):
        rates.rates(**good | changes)


@pytest.mark.parametrize("tier", rates.TIERS)
def test_links_have_no_contract_whoever_has(tier):
    shares = dict.fromkeys(rates.TIERS, 0.0) | {tier: 1.0}
    entry = ledger.transfer_entry(
        RATES._replace(contracted_share=shares),
        cycle=1,
        phase="down",
        stage="down",
        link="edge_end",
        up_bytes=10**9,
        down_bytes=0,
        crossings=1,
    )
    assert entry.carbon_market_g == entry.carbon_location_g > 0
