"""The measuring script on tiny sizes: what it writes can be read back."""

import json
import re
import sys

import jax
import pytest

from ecogen_jax.energy import roofline
from scripts import calibrate


def run(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["calibrate.py", *map(str, args)])
    return calibrate.main()


def test_it_writes_what_a_preflight_reads(tmp_path, monkeypatch, capsys):
    path = tmp_path / "calibration.json"
    dtypes = ["float32", "bfloat16"]
    assert run(monkeypatch, "--size", 32, "--output", path, "--dtype", *dtypes) == 0
    machine = roofline.calibrated(path)
    assert set(machine.peak_flops) == {"fp32", "bf16"}
    for rate in (*machine.peak_flops.values(), machine.bandwidth):
        assert 0 < rate.low <= rate.value <= rate.high
    printed = capsys.readouterr().out
    assert "GFLOP/s" in printed
    assert str(path) in printed.replace("\n", "")


def test_with_a_device_it_prints_the_share_of_the_peak(tmp_path, monkeypatch, capsys):
    path = tmp_path / "calibration.json"
    run(monkeypatch, "--size", 16, "--output", path, "--device", "h100")
    assert json.loads(path.read_text())["name"] == "h100"
    out, err = capsys.readouterr()
    assert out.count("% of the peak") == 2
    (warning,) = err.splitlines()
    assert warning.startswith("warning: --device is h100, but JAX runs on 'cpu': ")


@pytest.mark.parametrize(
    ("device", "kind", "warned"),
    [
        ("a100", "NVIDIA A100-SXM4-80GB", False),
        ("a100", "NVIDIA H100 80GB HBM3", True),
        ("h100", "NVIDIA H100 PCIe", True),
        ("tpu_v4", "TPU v4", False),
        ("tpu_v4", "TPU v3", True),
        ("server_cpu", "cpu", False),
        ("a100", "cpu", True),
    ],
)
def test_another_device_than_the_named_one_is_warned_of(capsys, device, kind, warned):
    calibrate.warn_of_another(device, kind)
    assert (repr(kind) in capsys.readouterr().err) == warned


def test_the_help_names_what_reads_the_file():
    assert "ecogen_jax.energy.roofline.calibrated" in calibrate.EXAMPLE
    assert "scripts/energy.py does not read it" in calibrate.EXAMPLE


def test_rates_are_the_amount_over_the_seconds(monkeypatch):
    clock = iter([0, 2, 10, 14, 20, 21, 30, 32, 40, 42])
    monkeypatch.setattr(calibrate.time, "perf_counter", lambda: next(clock))
    assert calibrate._rates(8, lambda: calibrate.jnp.zeros(())) == {
        "value": 4,
        "low": 2,
        "high": 8,
    }


@pytest.mark.parametrize(
    ("dtype", "full"),
    [("float32", True), ("tensorfloat32", False), ("bfloat16", False)],
)
def test_float32_is_timed_in_full_precision(monkeypatch, dtype, full):
    # The default of JAX would be TF32 on a GPU and bfloat16 on a TPU.
    monkeypatch.setattr(calibrate, "_rates", lambda amount, call: call)
    program = str(jax.make_jaxpr(calibrate.matmul_rate(dtype, 4))())
    assert ("Precision.HIGHEST" in program) == full


def test_the_amounts_are_those_of_the_programs(monkeypatch):
    monkeypatch.setattr(calibrate, "_rates", lambda amount, call: (amount, call()))
    flops, product = calibrate.matmul_rate("float32", 4)
    assert flops == 2 * 4**3
    assert calibrate.matmul_rate("tensorfloat32", 4)[1].dtype == product.dtype
    assert product.shape == (4, 4)
    moved, result = calibrate.stream_rate(10)
    assert moved == 3 * 40
    assert result.tolist() == [1.0] * 10


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (["--device", "h1000"], "h100"),
        (["--size", "0"], "--size is 0"),
        (["--output", "/no/dir/x.json"], "--output is .* there is no folder /no/dir;"),
        (["--output", "/proc/x.json"], "--output is /proc/x.json, which cannot be wri"),
        (["--output", "/dev/full", "--size", "16"], "/dev/full cannot be .*No space"),
    ],
)
def test_bad_arguments_are_one_line(tmp_path, monkeypatch, capsys, args, match):
    assert run(monkeypatch, "--output", tmp_path / "c.json", *args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"error: .*{match}", line)
    assert not (tmp_path / "c.json").exists()
