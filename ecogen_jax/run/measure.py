"""Measured joules of the simulating machine, if it has energy counters.

Only counters are accepted: an estimate by a tool without counters would be another
model. The counters are read through zeus (the extra `measure`), which supports RAPL for
CPUs and NVML for GPUs.
"""

import contextlib
import dataclasses
import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from ecogen_jax.energy import devices

# Words of a JAX device's name -> the table's device whose power is the model.
PROFILES = {
    "H100": "h100",
    "A100": "a100",
    "V100": "v100",
    "P100": "p100",
    "T4": "t4",
    "TPU v2": "tpu_v2",
    "TPU v3": "tpu_v3",
    "TPU v4": "tpu_v4",
    "cpu": "server_cpu",
}
SERVER_THREADS = 64
"""Hardware threads of the table's `server_cpu`."""


Monitor = Any  # zeus.monitor.ZeusMonitor, which only the extra installs


@dataclasses.dataclass
class HostEnergy:
    """The energy of the host while a block ran.

    Attributes:
      seconds: wall time of the block.
      measured_j: joules of all counters; None where nothing was measured.
      reason: what was measured, or why nothing was.
    """

    seconds: float = 0.0
    measured_j: float | None = None
    reason: str = ""

    def summary(self) -> dict[str, Any]:
        """The `host_energy` of `summary.json`; the model is seconds x power.

        The model covers all chips of this process, each with the watts of its row in
        `tables/devices.csv`: of the board alone (a100, h100, t4), or with its share of
        the host (p100, v100 and TPUs). What it leaves out of the host is in the
        counters, if RAPL is read. Counters are those of the whole machine, so several
        processes have no ratio.
        """
        name = profile(jax.devices()[0].device_kind)
        modelled_j = name and self.seconds * _power_w(name)
        ratio = None
        alone = jax.process_count() == 1
        if self.measured_j is not None and modelled_j and alone:
            ratio = self.measured_j / modelled_j
        return {
            "measured_j": self.measured_j,
            "modelled_j": modelled_j,
            "modelled_as": name,
            "ratio": ratio,
            "seconds": self.seconds,
            "kind": "modelled" if self.measured_j is None else "measured",
            "reason": self.reason,
        }


@contextlib.contextmanager
def host(
    start: Callable[[], tuple[Monitor | None, str]] | None = None,
) -> Iterator[HostEnergy]:
    """Measures a block; a host without counters gets the reason instead.

    Args:
      start: gives the monitor and "", or None and why there is none; `monitor` by
        default.

    Yields:
      Filled in when the block ends.
    """
    energy, found = HostEnergy(), None
    # No error of a counter's driver may end a run of hours.
    try:
        found, energy.reason = (start or monitor)()
        if found is not None:
            found.begin_window("run", sync_execution=False)
    except Exception as error:
        found, energy.reason = None, f"not measured: {error!r}"
    begun = time.perf_counter()
    try:
        yield energy
    finally:
        energy.seconds = time.perf_counter() - begun
        if found is not None:
            _read(energy, found)


def _read(energy: HostEnergy, found: Monitor) -> None:
    """Adds the counters up; a counter that may not be read gives nothing."""
    try:
        window = found.end_window("run", sync_execution=False)
    except Exception as error:
        energy.reason = f"not measured: {error!r}"
        return
    read = {"RAPL": window.cpu_energy or {}, "NVML": window.gpu_energy}
    joules = {name: sum(each.values()) for name, each in read.items()}
    if any(joules.values()):
        energy.measured_j = sum(joules.values())
        names = [name for name, joule in joules.items() if joule]
        energy.reason = f"measured by {' and '.join(names)}"
    else:
        energy.reason = "not measured: no counter could be read"


def monitor() -> tuple[Monitor | None, str]:
    """The host's monitor and "", or None and why there is none."""
    found = counters()
    if not found:
        return None, "not measured: no counter"
    if importlib.util.find_spec("zeus") is None:
        return None, (
            f"not measured: {' and '.join(found)} found, but no zeus to read them; "
            "pip install -e '.[measure]'"
        )
    from zeus.monitor import ZeusMonitor

    return ZeusMonitor(sync_execution_with="jax"), ""


def counters(root: Path = Path("/")) -> list[str]:
    """Names of the counters that this process may read, below a root folder."""
    zones = (root / "sys/class/powercap").glob("intel-rapl:*/energy_uj")
    found = ["RAPL"] if any(os.access(zone, os.R_OK) for zone in zones) else []
    return found + (["NVML"] if (root / "dev/nvidia0").exists() else [])


def _power_w(name: str) -> float:
    """Power of a host under load; for a CPU, its share of the table's server."""
    power_w = devices.device(name).power_w.value
    if name == "server_cpu":
        return power_w * (os.cpu_count() or 1) / SERVER_THREADS
    return power_w * _num_chips(name)


def _num_chips(name: str) -> int:
    """Chips of this process; each core of a TPU v2 or v3 is a device to JAX."""
    if name.startswith("tpu"):
        return len({tuple(device.coords) for device in jax.local_devices()})
    return jax.local_device_count()


def profile(device_kind: str) -> str | None:
    """The device of the table that a JAX device is, or None."""
    if is_variant(device_kind):
        return None
    words = f" {device_kind} ".replace("-", " ")
    return next((name for part, name in PROFILES.items() if f" {part} " in words), None)


def is_variant(device_kind: str) -> bool:
    """Whether a JAX device is a variant of one that `PROFILES` names.

    A TPU of another kind, or a board with less power than the SXM of the table.
    """
    words = device_kind.lower().replace("-", " ").split()
    return not {"lite", "pcie", "nvl"}.isdisjoint(words)
