"""Closed forms, limits and units of the predictions from a model description."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecogen_jax.energy import predict

CHIP = predict.Accelerator(1e15, 5e14, 1e12, 500.0)
DENSE = predict.Transformer(8e9, 8e9, 2, 32, 131072)
MIXTURE = predict.Transformer(32e9, 4e9, 2, 32, 131072, 128, 8)
LOAD = predict.Load(8, 300, 400)
FRACTIONS = st.floats(0.05, 1)


def step(model=DENSE, load=LOAD, efficiency=predict.DATASHEET, num_devices=1):
    return predict.decode_step(model, CHIP, load, efficiency, num_devices=num_devices)


def test_training_is_six_operations_per_parameter_and_token():
    assert predict.training_flops(175e9, 300e9) == pytest.approx(3.15e23)


def test_training_energy_is_time_of_one_chip_times_power_and_pue():
    kwh = predict.training_energy_kwh(
        3600e12, achieved_flops=1e12, power_w=300, pue=1.5
    )
    assert kwh == pytest.approx(0.45)  # one chip-hour at 300 W


def test_training_energy_refuses_a_pue_below_one():
    with pytest.raises(ValueError, match=r"pue is 0\.9"):
        predict.training_energy_kwh(1e20, achieved_flops=1e12, power_w=300, pue=0.9)


def test_a_forward_pass_adds_traffic_and_computation():
    both = predict.forward(CHIP, predict.DATASHEET, num_bytes=1e9, flops=1e12)
    assert both.seconds == pytest.approx(1e-3 + 1e-3)
    assert both.joules == pytest.approx(both.seconds * 500)


def test_a_dense_step_reads_all_weights_and_the_cache_of_each_request():
    context = 300 + 400 / 2
    expected = 8e9 * 2 + 8 * context * 131072
    assert predict.step_bytes(DENSE, LOAD) == pytest.approx(expected)


def test_a_dense_step_is_its_closed_form():
    flops = 2 * 8e9 * 8 * (1 + 300 / 400)
    seconds = predict.step_bytes(DENSE, LOAD) / 1e12 + flops / 1e15
    assert step().seconds == pytest.approx(seconds)
    assert step().joules == pytest.approx(seconds * 500)


def test_one_token_touches_the_active_parameters_of_a_mixture():
    bare = MIXTURE._replace(cache_bytes_per_token=0)
    one = predict.step_bytes(bare, LOAD._replace(batch=1))
    assert one == pytest.approx(4e9 * 2)


def test_a_large_batch_touches_every_expert():
    bare = MIXTURE._replace(cache_bytes_per_token=0)
    many = predict.step_bytes(bare, LOAD._replace(batch=10_000))
    assert many == pytest.approx(32e9 * 2)


def test_a_token_that_is_sent_to_every_expert_touches_them_all():
    bare = MIXTURE._replace(
        cache_bytes_per_token=0, experts_per_token=MIXTURE.num_experts
    )
    one = predict.step_bytes(bare, LOAD._replace(batch=1))
    assert one == pytest.approx(32e9 * 2)


def test_experts_pay_hops_by_the_depth_of_the_tree_and_dense_layers_do_not():
    slow = predict.DATASHEET._replace(hop_s=1e-3)
    waits = step(MIXTURE, efficiency=slow, num_devices=8).seconds
    plain = step(MIXTURE, num_devices=8).seconds
    assert waits - plain == pytest.approx(32 * 3 * 1e-3)
    assert step(DENSE, efficiency=slow) == step(DENSE)
    assert step(MIXTURE, efficiency=slow) == step(MIXTURE)  # one device, no hop


def test_devices_share_the_time_and_not_the_energy_of_a_dense_step():
    one, four = step(), step(num_devices=4)
    assert four.seconds == pytest.approx(one.seconds / 4)
    assert four.joules == pytest.approx(one.joules)


@given(FRACTIONS, FRACTIONS, FRACTIONS)
def test_no_fraction_of_the_datasheet_makes_a_step_faster(bandwidth, compute, power):
    real = predict.Efficiency(bandwidth, compute, compute, 0.0, power)
    assert step(efficiency=real).seconds >= step().seconds
    assert step(efficiency=real).joules == pytest.approx(
        step(efficiency=real).seconds * 500 * power
    )


@given(st.floats(1, 512), st.floats(1.01, 8))
def test_a_larger_batch_costs_more_a_step_and_less_a_token(batch, growth):
    small = step(load=LOAD._replace(batch=batch))
    large = step(load=LOAD._replace(batch=batch * growth))
    assert large.joules > small.joules
    assert large.joules / (batch * growth) < small.joules / batch


@pytest.mark.parametrize("field", ["batch", "prompt_tokens", "output_tokens"])
def test_a_load_without_tokens_is_refused(field):
    with pytest.raises(ValueError, match=f"{field} is 0"):
        step(load=LOAD._replace(**{field: 0}))


def cap(cap_w, share):
    return predict.power_cap(cap_w, base_w=250, static_w=100, clocked_share=share)


def test_no_cap_changes_nothing():
    assert cap(250, 0.7) == (1.0, 1.0)


def test_memory_bound_work_saves_the_whole_power_of_a_cap():
    assert cap(150, 0.0) == pytest.approx((1.0, 0.6))


def test_clocked_work_slows_by_the_cube_root_of_the_power_of_the_cores():
    slower = (150 / 50) ** (1 / 3)
    assert cap(150, 1.0) == pytest.approx((slower, 0.6 * slower))


@given(st.floats(101, 249), FRACTIONS)
def test_a_tighter_cap_is_never_faster(cap_w, share):
    assert cap(cap_w, share).time_ratio >= cap(250, share).time_ratio


@pytest.mark.parametrize("cap_w", [100, 251, math.nan])
def test_a_cap_outside_static_and_reference_power_is_refused(cap_w):
    with pytest.raises(ValueError, match="cap_w is"):
        cap(cap_w, 0.5)


def test_a_share_above_one_is_refused():
    with pytest.raises(ValueError, match=r"clocked_share is 1\.5"):
        cap(200, 1.5)
