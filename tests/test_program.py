"""The three-line estimate of any JAX function."""

import jax
import jax.numpy as jnp
import pytest

import ecogen_jax.energy
from ecogen_jax.energy import constants, roofline

SIDE = 4096
MATRIX = jax.ShapeDtypeStruct((SIDE, SIDE), jnp.bfloat16)


def product(a, b):
    return a @ b


def test_a_large_product_by_hand():
    found = ecogen_jax.energy.estimate(product, MATRIX, MATRIX, device="a100")
    assert found.flops == 2 * SIDE**3
    # Far more arithmetic than bytes: the peak and the reached share of it decide.
    seconds = 2 * SIDE**3 / (312e12 * roofline.COMPUTE_FRACTION.value)
    power = constants.device("a100").power_w
    assert found.seconds.value == pytest.approx(seconds)
    assert found.energy_j.value == pytest.approx(seconds * power.value)
    assert found.energy_j.high == pytest.approx(found.seconds.high * power.high)
    grams = found.energy_j.value / 3.6e6 * constants.grid("World").value
    assert found.carbon_g.value == pytest.approx(grams)


def test_intervals_hold_their_values():
    found = ecogen_jax.energy.estimate(product, MATRIX, MATRIX)
    for interval in found[1:]:
        assert 0 < interval.low < interval.value < interval.high


def test_a_function_that_only_moves_bytes_takes_the_time_of_the_memory():
    found = ecogen_jax.energy.estimate(lambda a: a + 1, MATRIX, device="h100")
    fewest = 2 * 2 * SIDE**2 / 3.35e12
    assert found.seconds.low == pytest.approx(fewest, rel=1e-3)


def test_country_changes_grams_alone():
    here = ecogen_jax.energy.estimate(product, MATRIX, MATRIX, country="Poland")
    there = ecogen_jax.energy.estimate(product, MATRIX, MATRIX, country="Sweden")
    assert here.energy_j == there.energy_j
    assert here.carbon_g.value / there.carbon_g.value == pytest.approx(614.98 / 35.89)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "h10"}, "did you mean 'h100'"),
        ({"country": "Polland"}, "did you mean 'Poland'"),
        ({"device": "tpu_v5e"}, "'tpu_v5e' has no achieved_flops.*devices.csv"),
        ({"device": "t4"}, "bfloat16.*cast"),
    ],
)
def test_what_a_device_lacks_is_named_with_a_way_out(changes, message):
    with pytest.raises(ValueError, match=message):
        ecogen_jax.energy.estimate(product, MATRIX, MATRIX, **changes)
