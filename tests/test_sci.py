"""Software Carbon Intensity is (O + M) / R, and says what it leaves out."""

from typing import Any

import pytest

from ecogen_jax.energy import ledger, rates
from ecogen_jax.energy.sci import sci

WHERE: dict[str, Any] = {"cycle": 1, "phase": "up", "stage": "up"}


def entries(end):
    constants = rates.rates(
        devices={"cloud": "tpu_v3", "edge": "t4", "end": end},
        links={"cloud_edge": "fibre", "edge_end": "wifi"},
        country="World",
        contracted_share={"cloud": 1.0, "edge": 0.0, "end": 0.0},
    )
    return [
        ledger.compute_entry(constants, tier="cloud", flops=1e15, host_s=0, **WHERE),
        ledger.compute_entry(constants, tier="end", flops=1e12, host_s=0, **WHERE),
        ledger.transfer_entry(
            constants,
            link="edge_end",
            up_bytes=10**6,
            down_bytes=0,
            crossings=1,
            **WHERE,
        ),
    ]


def test_both_functional_units_share_the_same_grams():
    found = entries("jetson_nano")
    result = sci(found, cycles=2, inferences=1000, includes_idle=True)
    operation = sum(entry.carbon_location_g for entry in found)
    making = sum(entry.embodied_g for entry in found)
    assert making > 0
    # Contracts do not enter, though the cloud's market-based carbon is zero.
    assert result["operational_g"] == pytest.approx(operation)
    assert result["g_per_cycle"] == pytest.approx((operation + making) / 2)
    assert result["g_per_inference"] == pytest.approx((operation + making) / 1000)
    assert result["embodied_unknown"] == []
    assert result["includes_idle"] is True


def test_a_device_whose_making_is_unknown_is_named():
    found = entries("raspberry_pi_4")
    result = sci(found, cycles=1, inferences=1, includes_idle=False)
    assert result["embodied_unknown"] == ["end"]
    assert result["embodied_g"] == pytest.approx(found[0].embodied_g)


def test_nothing_served_has_no_intensity():
    with pytest.raises(ValueError, match="functional_units"):
        sci(entries("t4"), cycles=0, inferences=1, includes_idle=False)
