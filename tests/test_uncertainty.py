"""Intervals of constants reach the totals, and the widest one is named first."""

import json
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.energy import ledger, rates, uncertainty
from ecogen_jax.energy.constants import Constant

RATES = rates.rates(
    devices={"cloud": "tpu_v4", "edge": "server_cpu", "end": "raspberry_pi_4"},
    links={"cloud_edge": "fibre", "edge_end": "wifi"},
    country="World",
    contracted_share={"cloud": 0.0, "edge": 0.0, "end": 0.0},
    include_idle=True,
)
WHERE: dict[str, Any] = {"cycle": 1, "phase": "up", "stage": "up"}
ENTRIES = [
    ledger.compute_entry(RATES, tier="cloud", flops=1e15, host_s=0, **WHERE),
    ledger.compute_entry(RATES, tier="end", flops=1e10, host_s=0, **WHERE),
    ledger.idle_entry(RATES, tier="edge", wait_s=30.0, waits_for="cloud", **WHERE),
    ledger.transfer_entry(
        RATES, link="edge_end", up_bytes=1e7, down_bytes=5, crossings=2, **WHERE
    ),
]


def constant(value, low, high):
    return Constant(value, low, high, "W", "a test", "2024", "assumed")


@pytest.fixture(scope="module")
def found():
    return uncertainty.analyse(RATES, uncertainty.count(ENTRIES, RATES))


def test_counts_are_those_of_the_entries():
    counts = uncertainty.count(ENTRIES, RATES)
    assert counts.flops == {"cloud": 1e15, "edge": 0, "end": 1e10}
    assert counts.num_bytes == {"cloud_edge": 0, "edge_end": 1e7 + 5}
    assert counts.wait_s == {("edge", "cloud"): pytest.approx(30.0)}


def test_best_values_are_the_ledger_s_sums(found):
    energy_j = sum(entry.energy_j for entry in ENTRIES)
    carbon_g = sum(entry.carbon_location_g for entry in ENTRIES)
    assert found.energy_j.value == pytest.approx(energy_j, rel=1e-5)
    assert found.carbon_g.value == pytest.approx(carbon_g, rel=1e-5)


def test_the_interval_is_narrower_than_all_corners_at_once(found):
    low = sum(entry.energy_low_j for entry in ENTRIES)
    high = sum(entry.energy_high_j for entry in ENTRIES)
    assert low < found.energy_j.low < found.energy_j.value
    assert found.energy_j.value < found.energy_j.high < high


def test_the_same_seed_draws_the_same(found):
    counts = uncertainty.count(ENTRIES, RATES)
    assert uncertainty.analyse(RATES, counts, seed=0) == found
    other = uncertainty.analyse(RATES, counts, seed=1)
    assert other.energy_j.high == pytest.approx(found.energy_j.high, rel=0.03)
    assert other.energy_j.high != found.energy_j.high


def test_the_tornado_holds_every_input_once_and_the_widest_first(found):
    widths = [bar.carbon_g.high - bar.carbon_g.low for bar in found.bars]
    assert widths == sorted(widths, reverse=True)
    assert {bar.name for bar in found.bars} == {
        *("grid intensity", "cloud pue", "edge pue", "end pue"),
        *("tpu_v4 achieved_flops", "tpu_v4 power_w", "server_cpu idle_power"),
        *("raspberry_pi_4 achieved_flops", "raspberry_pi_4 power_w"),
        "wifi average J/B",
    }


def test_a_bar_is_the_total_with_one_input_moved(found):
    bars = {bar.name: bar for bar in found.bars}
    bar = bars["tpu_v4 power_w"]
    cloud, rest = ENTRIES[0].energy_j, sum(entry.energy_j for entry in ENTRIES[1:])
    at_high = cloud * bar.constant.high / bar.constant.value + rest
    assert bar.energy_j.high == pytest.approx(at_high, rel=1e-5)
    assert bar.energy_j.value == pytest.approx(found.energy_j.value)
    # A faster device draws its power for a shorter time, and is waited for as long.
    speed = bars["tpu_v4 achieved_flops"]
    moved = ENTRIES[0].energy_j + ENTRIES[2].energy_j
    others = sum(entry.energy_j for entry in ENTRIES) - moved
    at_fastest = moved * speed.constant.value / speed.constant.high + others
    assert speed.energy_j.low == pytest.approx(at_fastest, rel=1e-5)
    # The grid moves grams alone.
    assert bars["grid intensity"].energy_j.low == found.energy_j.value
    assert bars["grid intensity"].carbon_g.low < found.carbon_g.value


def test_waiting_of_an_older_checkpoint_is_taken_as_exact(found):
    rows = [dict(row) for row in ledger.to_json(ENTRIES)]
    for row in rows:
        del row["waits_for"]
    old = uncertainty.analyse(RATES, uncertainty.count(ledger.from_json(rows), RATES))
    assert old.energy_j.value == found.energy_j.value
    bars, old_bars = ({b.name: b for b in one.bars} for one in (found, old))
    speed = "tpu_v4 achieved_flops"
    assert old_bars[speed].energy_j.high < bars[speed].energy_j.high


def test_a_device_at_two_tiers_is_one_input():
    shared = rates.rates(
        devices={"cloud": "t4", "edge": "t4", "end": "t4"},
        links={"cloud_edge": "fibre", "edge_end": "wifi"},
        country="World",
        contracted_share={"cloud": 0.0, "edge": 0.0, "end": 0.0},
    )
    one, three = (
        uncertainty.Counts(
            dict.fromkeys(rates.TIERS, 0.0) | dict.fromkeys(tiers, 1e12 / len(tiers)),
            dict.fromkeys(rates.LINKS, 0.0),
            {},
        )
        for tiers in (("cloud",), rates.TIERS)
    )
    alone, together = (uncertainty.analyse(shared, each) for each in (one, three))
    # Independent errors would average out by the square root of three.
    width = [
        np.log(each.energy_j.high / each.energy_j.low) for each in (alone, together)
    ]
    assert width[1] > 0.9 * width[0]
    assert sum("t4" in bar.name for bar in together.bars) == 2


def test_a_triangle_peaks_at_the_value():
    one = constant(3.0, 1.0, 4.0)
    probability = jnp.asarray([0.0, 2 / 3, 1.0], jnp.float32)
    ends = uncertainty.quantile(one, probability)
    np.testing.assert_allclose(ends, [1.0, 3.0, 4.0], rtol=1e-5)
    uniform = jnp.linspace(0.0005, 0.9995, 1000, dtype=jnp.float32)
    mean = jnp.mean(uncertainty.quantile(one, uniform))
    assert float(mean) == pytest.approx((1 + 3 + 4) / 3, rel=1e-3)


def test_a_wide_interval_is_uniform_in_the_logarithm():
    half = jnp.asarray([0.0, 0.5, 1.0], jnp.float32)
    drawn = uncertainty.quantile(constant(2.0, 1.0, 100.0), half)
    np.testing.assert_allclose(drawn, [1.0, 10.0, 100.0], rtol=1e-5)


def test_a_constant_without_interval_stays_itself():
    drawn = uncertainty.quantile(
        constant(5.0, 5.0, 5.0), jnp.asarray([0.0, 0.3, 1.0], jnp.float32)
    )
    np.testing.assert_allclose(drawn, 5.0)


def test_json_has_the_inputs_with_their_sources(found):
    content = json.loads(json.dumps(uncertainty.to_json(found)))
    assert content["coverage"] == 0.9
    assert content["energy_j"]["low"] == found.energy_j.low
    assert [row["name"] for row in content["inputs"]] == [b.name for b in found.bars]
    assert all(row["source"] and row["unit"] for row in content["inputs"])


def test_the_interval_holds_nine_draws_in_ten():
    counts = uncertainty.Counts(
        dict.fromkeys(rates.TIERS, 0.0), {"cloud_edge": 0.0, "edge_end": 1e9}, {}
    )
    found = uncertainty.analyse(RATES, counts).energy_j
    tails = jnp.asarray([0.05, 0.95], jnp.float32)
    ends = uncertainty.quantile(RATES.link_energy["edge_end"], tails)
    assert [found.low, found.high] == pytest.approx((1e9 * ends).tolist(), rel=0.03)
