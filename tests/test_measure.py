"""Counters of the host are read where there are any; else the reason is told."""

from types import SimpleNamespace

import pytest

from ecogen_jax.energy import constants, devices
from ecogen_jax.run import measure


class FakeMonitor:
    def __init__(self, gpu=None, cpu=None):
        self.gpu, self.cpu, self.calls = gpu or {}, cpu, []

    def begin_window(self, key, sync_execution=True):
        self.calls.append(("begin", key))

    def end_window(self, key, sync_execution=True):
        self.calls.append(("end", key))
        return SimpleNamespace(gpu_energy=self.gpu, cpu_energy=self.cpu)


def test_all_counters_are_added_up_beside_the_model(monkeypatch):
    monkeypatch.setattr(measure.os, "cpu_count", lambda: 16)
    monkeypatch.setattr(measure.time, "perf_counter", iter([10.0, 14.0]).__next__)
    monitor = FakeMonitor(gpu={0: 300.0, 1: 50.0}, cpu={0: 98.0})
    with measure.host(lambda: (monitor, "")) as energy:
        assert monitor.calls == [("begin", "run")]
    assert monitor.calls[-1] == ("end", "run")
    summary = energy.summary()
    # A quarter of the table's server of 64 threads.
    modelled_j = 4.0 * devices.device("server_cpu").power_w.value / 4
    assert summary == {
        "measured_j": 448.0,
        "modelled_j": pytest.approx(modelled_j),
        "modelled_as": "server_cpu",
        "ratio": pytest.approx(448.0 / modelled_j),
        "seconds": 4.0,
        "kind": "measured",
        "reason": "measured by RAPL and NVML",
    }


def test_counters_of_a_machine_are_not_held_against_one_of_its_processes(monkeypatch):
    monkeypatch.setattr(measure.jax, "process_count", lambda: 4)
    with measure.host(lambda: (FakeMonitor(gpu={0: 300.0}), "")) as energy:
        pass
    summary = energy.summary()
    assert (summary["measured_j"], summary["ratio"]) == (300.0, None)
    assert summary["modelled_j"] > 0


def test_without_counters_the_host_is_modelled_and_says_so():
    with measure.host(lambda: (None, "not measured: no counter")) as energy:
        pass
    summary = energy.summary()
    assert (summary["measured_j"], summary["ratio"]) == (None, None)
    assert summary["kind"] == "modelled"
    assert summary["reason"] == "not measured: no counter"
    assert summary["modelled_j"] > 0


def test_a_counter_that_gives_nothing_is_no_measurement_of_zero():
    with measure.host(lambda: (FakeMonitor(), "")) as energy:
        pass
    assert energy.measured_j is None
    assert energy.reason == "not measured: no counter could be read"


def test_what_measured_is_who_gave_numbers():
    with measure.host(lambda: (FakeMonitor(gpu={0: 3.0}, cpu={0: 0.0}), "")) as energy:
        pass
    assert (energy.measured_j, energy.reason) == (3.0, "measured by NVML")


class Broken(FakeMonitor):
    def __init__(self, at):
        super().__init__(cpu={0: 1.0})
        self.at = at

    def begin_window(self, key, sync_execution=True):
        if self.at == "begin":
            raise ValueError("GPU-1 is no number")

    def end_window(self, key, sync_execution=True):
        raise RuntimeError("GPU is lost")


@pytest.mark.parametrize(("at", "why"), [("begin", "GPU-1 is no"), ("end", "is lost")])
def test_a_run_outlives_its_counters(at, why):
    worked = False
    with measure.host(lambda: (Broken(at), "")) as energy:
        worked = True
    assert worked
    summary = energy.summary()
    assert summary["measured_j"] is None
    assert why in summary["reason"]
    assert summary["reason"].startswith("not measured")


def test_an_error_inside_ends_the_window_and_passes_on():
    monitor = FakeMonitor(cpu={0: 1.0})
    with pytest.raises(KeyError), measure.host(lambda: (monitor, "")) as energy:
        raise KeyError
    assert energy.measured_j == 1.0


def test_counters_are_found_by_what_the_system_shows(tmp_path):
    assert measure.counters(tmp_path) == []
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    assert measure.counters(tmp_path) == []
    (zone / "energy_uj").write_text("12345")
    assert measure.counters(tmp_path) == ["RAPL"]
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    assert measure.counters(tmp_path) == ["RAPL", "NVML"]


def test_no_counter_and_no_reader_are_told_apart(monkeypatch):
    monkeypatch.setattr(measure, "counters", lambda: [])
    assert measure.monitor() == (None, "not measured: no counter")
    monkeypatch.setattr(measure, "counters", lambda: ["RAPL"])
    monkeypatch.setattr(measure.importlib.util, "find_spec", lambda name: None)
    found, reason = measure.monitor()
    assert found is None
    assert "RAPL found" in reason
    assert "pip install -e '.[measure]'" in reason


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("Tesla T4", "t4"),
        ("TPU v4", "tpu_v4"),
        ("cpu", "server_cpu"),
        ("Apple M9", None),
        ("NVIDIA T400", None),
        ("TPU v4 lite", None),
        ("NVIDIA A100-SXM4-40GB", "a100"),
        ("NVIDIA A100-PCIE-40GB", None),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H100 NVL", None),
    ],
)
def test_the_model_of_a_host_is_known_by_its_device(kind, name):
    assert measure.profile(kind) == name
    if name:
        assert name in constants.names("devices", devices.TRAINING)


@pytest.mark.parametrize(("kind", "cores"), [("TPU v3", 2), ("TPU v4", 1)])
def test_watts_of_a_tpu_count_once_a_chip(monkeypatch, kind, cores):
    chips = [[x, y, 0] for x in range(2) for y in range(2)]
    fakes = [SimpleNamespace(device_kind=kind, coords=chip) for chip in chips * cores]
    monkeypatch.setattr(measure.jax, "devices", lambda: fakes)
    monkeypatch.setattr(measure.jax, "local_devices", lambda: fakes)
    watts = devices.device(measure.profile(kind)).power_w.value
    summary = measure.HostEnergy(seconds=3.0).summary()
    assert summary["modelled_j"] == pytest.approx(3.0 * 4 * watts)
