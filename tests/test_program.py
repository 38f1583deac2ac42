"""The three-line estimate of any JAX function."""

import jax
import jax.numpy as jnp
import pytest

import ecogen_jax.energy
from ecogen_jax.energy import constants, devices, roofline

SIDE = 4096
MATRIX = jax.ShapeDtypeStruct((SIDE, SIDE), jnp.bfloat16)


def product(a, b):
    return a @ b


def test_a_large_product_by_hand():
    found = ecogen_jax.energy.estimate(product, MATRIX, MATRIX, device="a100")
    assert found.flops == 2 * SIDE**3
    # Far more arithmetic than bytes: the peak and the reached share of it decide.
    seconds = 2 * SIDE**3 / (312e12 * roofline.COMPUTE_FRACTION.value)
    power = devices.device("a100").power_w
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


def until_small(a):
    return jax.lax.while_loop(lambda x: x[0, 0] > 1, lambda x: x @ x, a)


def test_a_while_loop_costs_up_to_its_stated_bound():
    found = ecogen_jax.energy.estimate(
        until_small, MATRIX, device="a100", while_trips=5
    )
    once = ecogen_jax.energy.estimate(product, MATRIX, MATRIX, device="a100")
    assert found.flops == pytest.approx(5 * once.flops, rel=1e-6)
    assert found.seconds.value == pytest.approx(5 * once.seconds.value, rel=1e-3)
    # It may stop at once, so nothing bounds it from below.
    assert found.energy_j.low < 1e-3 * once.energy_j.low


def test_the_interval_holds_for_every_branch_and_without_a_trip():
    single = jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32)
    flag = jax.ShapeDtypeStruct((), jnp.bool_)

    def exact(a, b):
        return jnp.matmul(a, a, precision="highest"), b

    def short(a, b):
        return a, b @ b @ b @ b

    def either(flag, a, b):
        return jax.lax.cond(flag, exact, short, a, b)

    found = ecogen_jax.energy.estimate(either, flag, single, MATRIX, device="a100")
    for branch in (exact, short):
        alone = ecogen_jax.energy.estimate(branch, single, MATRIX, device="a100")
        assert found.seconds.low <= alone.seconds.low
        assert alone.seconds.high <= found.seconds.high

    def looped(x):
        products = x @ x @ x
        return jax.lax.while_loop(lambda x: x[0, 0] > 1, jnp.sin, products)

    low = {
        trips: ecogen_jax.energy.estimate(looped, MATRIX, while_trips=trips).seconds.low
        for trips in (0, 1000)
    }
    assert low[1000] == pytest.approx(low[0])


def test_a_bounded_loop_that_memory_bounds_takes_the_time_of_its_weights():
    row = jax.ShapeDtypeStruct((1, SIDE), jnp.bfloat16)

    def decode(x, w):
        return jax.lax.while_loop(lambda x: x[0, 0] > 1, lambda x: x @ w, x)

    found = ecogen_jax.energy.estimate(
        decode, row, MATRIX, device="a100", while_trips=7
    )
    reached = 2.039e12 * roofline.MEMORY_FRACTION.value
    assert found.seconds.value == pytest.approx(7 * 2 * SIDE**2 / reached, rel=1e-2)
    assert found.seconds.low == 0


def test_a_bound_by_the_name_of_the_body_is_the_same():
    def body(x):
        return x @ x

    def loop(a):
        return jax.lax.while_loop(lambda x: x[0, 0] > 1, body, a)

    named = ecogen_jax.energy.estimate(loop, MATRIX, while_trips={"body": 3})
    assert named == ecogen_jax.energy.estimate(loop, MATRIX, while_trips=3)


def test_a_while_loop_without_a_bound_is_refused_with_a_way_out():
    with pytest.raises(ValueError, match=r"without a static trip count.*while_trips="):
        ecogen_jax.energy.estimate(until_small, MATRIX)


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
