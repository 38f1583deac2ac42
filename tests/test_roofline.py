"""Closed forms of the roofline and of power, and what they refuse."""

import json

import jax.numpy as jnp
import pytest
from jax import ShapeDtypeStruct, lax

from ecogen_jax.energy import constants, devices, meter, roofline
from ecogen_jax.energy.constants import Constant
from ecogen_jax.energy.counts import Cost

MATMUL_F32, ADD_F32 = ("matmul", "float32"), ("elementwise", "float32")


def constant(value, low=None, high=None):
    return Constant(value, low or value, high or value, "", "test", "2024", "assumed")


def program(parts, moved=0.0, fused=None, moved_low=None, fewest=None, most=None):
    flops = float(sum(parts.values()))
    fused = moved if fused is None else fused
    low = fused if moved_low is None else moved_low
    fewest = parts if fewest is None else fewest
    most = parts if most is None else most
    flops_low = float(sum(fewest.values()))
    return Cost(flops, flops_low, parts, fewest, most, moved, fused, low, 0, 0)


def device(**changes):
    one = constant(1.0)
    plain = roofline.Machine("toy", {"fp32": constant(100.0)}, constant(10.0), one, one)
    return plain._replace(**changes)


def test_time_is_that_of_the_slower_of_arithmetic_and_memory():
    assert roofline.time_s(program({MATMUL_F32: 500.0}, 20.0), device()).value == 5
    assert roofline.time_s(program({MATMUL_F32: 500.0}, 80.0), device()).value == 8


def test_time_without_intervals_is_a_point():
    assert roofline.time_s(program({MATMUL_F32: 500.0}, 20.0), device()) == (5, 5, 5)


def test_fractions_stretch_the_time():
    half = device(compute_fraction=constant(0.5), memory_fraction=constant(0.25))
    assert roofline.time_s(program({MATMUL_F32: 500.0}, 0.0), half).value == 10
    assert roofline.time_s(program({MATMUL_F32: 0.0}, 80.0), half).value == 32


def test_interval_takes_the_corners():
    loose = device(
        peak_flops={"fp32": constant(100.0, 50.0, 200.0)},
        compute_fraction=constant(0.5, 0.25, 1.0),
    )
    cost = program({MATMUL_F32: 400.0}, fewest={MATMUL_F32: 100.0})
    assert roofline.time_s(cost, loose) == (8, 0.5, 32)
    cost = program({MATMUL_F32: 400.0}, most={MATMUL_F32: 400.0, ADD_F32: 200.0})
    assert roofline.time_s(cost, loose) == (8, 2, 48)
    memory = roofline.time_s(program({}, moved=900.0, fused=100.0), device())
    assert memory == (30, 10, 90)


def test_the_value_moves_the_bytes_of_the_trips_that_its_flops_have():
    cost = program({}, moved=900.0, fused=400.0, moved_low=0.0, fewest={})
    assert roofline.time_s(cost, device()) == (60, 0, 90)


def test_products_run_at_their_dtype_and_the_rest_on_the_vector_units():
    parts = {("conv", "bfloat16"): 400.0, ("reduction", "int32"): 50.0, ADD_F32: 50.0}
    peaks = {"bf16": 400.0, "fp32": 100.0}
    assert roofline.compute_s(parts, peaks, "toy") == 1 + 0.5 + 0.5
    assert roofline.compute_s({ADD_F32: 50.0}, {"bf16": 25.0}, "toy") == 2


@pytest.mark.parametrize(
    ("asked", "cpu", "gpu", "tpu"),
    [
        (None, 100, 20, 10),
        (lax.Precision.HIGH, 100, 20, 30),
        (lax.Precision.HIGHEST, 100, 100, 60),
    ],
)
def test_float32_products_run_on_the_units_of_their_precision(asked, cpu, gpu, tpu):
    side = ShapeDtypeStruct((50, 50), jnp.float32)
    parts = meter.cost(lambda x: lax.dot(x, x, precision=asked), side)
    parts = parts.by_class_and_dtype
    (flops,) = parts.values()
    peaks = {"fp32": flops / 100, "tf32": flops / 20, "bf16": flops / 10}
    took = [
        roofline.compute_s(parts, {name: peaks[name] for name in known}, "toy")
        for known in (["fp32"], ["tf32", "fp32", "bf16"], ["bf16"])
    ]
    assert took == pytest.approx([cpu, gpu, tpu])


@pytest.mark.parametrize("dtype", ["float16", "float64", "float8_e4m3fn"])
def test_a_dtype_that_the_device_lacks_is_refused(dtype):
    parts = {("matmul", dtype): 1.0}
    with pytest.raises(ValueError, match=f"{dtype} of matmul.*'tpu'.*bfloat16.*cast"):
        roofline.compute_s(parts, {"bf16": 1.0}, "tpu")


def test_machine_takes_the_peaks_of_the_table():
    h100 = roofline.machine("h100")
    assert set(h100.peak_flops) == {"bf16", "fp16", "tf32", "fp32", "int8"}
    assert h100.peak_flops["bf16"] == devices.device_cell("h100", "peak_bf16_flops")
    assert set(roofline.machine("tpu_v3").peak_flops) == {"bf16"}
    with pytest.raises(ValueError, match="h100"):
        roofline.machine("h1000")


@pytest.mark.parametrize("name", constants.names("devices", having=["bandwidth"]))
def test_fractions_of_every_device_lie_in_their_interval(name):
    machine = roofline.machine(name)
    for number in (machine.compute_fraction, machine.memory_fraction):
        assert 0 < number.low <= number.value <= number.high <= 1


def test_a_program_on_a_device():
    cost = meter.cost(lax.dot, *[ShapeDtypeStruct((4096, 4096), jnp.bfloat16)] * 2)
    seconds = roofline.time_s(cost, roofline.machine("h100"))
    assert 2 * 4096**3 / 989e12 < seconds.low < seconds.value < seconds.high < 1e-2


def test_calibration_becomes_a_machine(tmp_path):
    rate = {"value": 2.0, "low": 1.0, "high": 4.0}
    record = {
        "name": "desk",
        "date": "2024-01-01",
        "flops_per_s": {"float32": rate},
        "bytes_per_s": rate,
    }
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(record))
    desk = roofline.calibrated(path)
    assert desk.peak_flops["fp32"][:3] == desk.bandwidth[:3] == (2, 1, 4)
    assert desk.bandwidth.kind == "measured"
    assert roofline.time_s(program({MATMUL_F32: 8.0}, 4.0), desk) == (4, 2, 8)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"name": "desk"}', r"\['name'\]"),
        ("[1, 2]", "no calibration"),
        ("name: desk", r"no calibration \("),
    ],
)
def test_a_file_that_is_no_calibration_is_refused(tmp_path, text, said):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"other.json.*{said}.*calibrate.py"):
        roofline.calibrated(path)


def test_a_calibration_of_another_dtype_is_refused(tmp_path):
    path = tmp_path / "calibration.json"
    rate = {"value": 2.0, "low": 1.0, "high": 4.0}
    record = {"name": "desk", "date": "2024-01-01", "bytes_per_s": rate}
    path.write_text(json.dumps(record | {"flops_per_s": {"float64": rate}}))
    with pytest.raises(ValueError, match=r"rates of float64.*float32.*calibrate.py"):
        roofline.calibrated(path)
