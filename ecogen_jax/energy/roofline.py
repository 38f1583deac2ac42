"""Time of a program on a device, before it runs.

    seconds = max(sum of FLOPs / (peak x fraction), bytes / (bandwidth x fraction))

The roofline of Williams, Waterman and Patterson 2009 (CACM 52(4)), with the share of
each peak that programs reach. (Time and energy under a power cap: `predict.power_cap`.)

Products run at the peak of their operands' dtype and precision (`UNITS`). All else runs
on the vector units, at the fp32 peak or, where a device has none, at the lowest peak
that it has.
"""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

from ecogen_jax.energy import constants, devices
from ecogen_jax.energy.constants import Constant
from ecogen_jax.energy.counts import Cost, Parts
from ecogen_jax.energy.ledger import Interval

# What a calibration measures -> name of that peak in tables/devices.csv.
PEAKS = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "tensorfloat32": "tf32",
    "float32": "fp32",
    "int8": "int8",
    "uint8": "int8",
}
# What products are computed in (`primitives.dtype`) -> the peaks that a device may
# have for it, the first of which is taken, and the passes over the operands. The rules
# are those of `jax.lax.Precision`: float32 products take TF32 by default, or one pass
# in bfloat16 on a TPU, which has neither TF32 nor an fp32 peak.
UNITS: dict[str, tuple[tuple[str, int], ...]] = {
    "bfloat16": (("bf16", 1),),
    "float16": (("fp16", 1),),
    "float32": (("tf32", 1), ("fp32", 1), ("bf16", 1)),
    "float32_high": (("tf32", 1), ("fp32", 1), ("bf16", 3)),
    "float32_highest": (("fp32", 1), ("bf16", 6)),
    "int8": (("int8", 1),),
    "uint8": (("int8", 1),),
}
COMPUTE_FRACTION = Constant(
    0.34,
    0.197,
    0.565,
    "1",
    "Patterson et al. 2021 (arXiv 2104.10350) Table 4, measured over peak: Meena "
    "42.3 / 123 TFLOP/s; low: GPT-3 24.6 / 125; high: LaMDA (arXiv 2201.08239) "
    "section 10, 56.5 %",
    "2021-04",
    "measured",
)
MEMORY_FRACTION = Constant(
    0.8,
    0.5,
    1.0,
    "1",
    "assumed: streaming kernels come near the datasheet (high), strided reach half",
    "2024",
    "assumed",
)


class Machine(NamedTuple):
    """What the roofline needs of a device.

    Attributes:
        name: key in ``tables/devices.csv``, or what a calibration was called.
        peak_flops: peak FLOP/s by ``bf16``, ``fp16``, ``tf32``, ``fp32``, ``int8``.
        bandwidth: peak of the memory, in B/s.
        compute_fraction: share of a peak of FLOP/s that programs reach.
        memory_fraction: share of the bandwidth that programs reach.
    """

    name: str
    peak_flops: dict[str, Constant]
    bandwidth: Constant
    compute_fraction: Constant = COMPUTE_FRACTION
    memory_fraction: Constant = MEMORY_FRACTION


def machine(name: str) -> Machine:
    """Looks up the datasheet peaks of a device.

    Args:
        name: one of ``constants.names("devices")``.

    Returns:
        Its peaks, with the sourced default of what programs reach of them.

    Raises:
        ValueError: the device is unknown, or its table has no bandwidth.
    """
    bandwidth = devices.device_cell(name, "bandwidth")
    frame = constants.table("devices")
    known = set(frame.loc[frame["name"] == name, "quantity"])
    peaks = {
        peak: devices.device_cell(name, f"peak_{peak}_flops")
        for peak in dict.fromkeys(PEAKS.values())
        if f"peak_{peak}_flops" in known
    }
    return Machine(name, peaks, bandwidth)


def calibrated(path: str | pathlib.Path) -> Machine:
    """Reads what ``scripts/calibrate.py`` measured.

    Args:
        path: the JSON file that it wrote.

    Returns:
        A machine whose peaks are the measured rates, of which programs reach all:
        what a large matrix product reaches bounds what a program reaches.

    Raises:
        ValueError: the file is no calibration, or has a dtype without a peak.
    """
    try:
        record = json.loads(pathlib.Path(path).read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} is no calibration ({error}); make one with scripts/calibrate.py"
        ) from error
    keys = sorted(record) if isinstance(record, dict) else []
    if not {"name", "flops_per_s", "bytes_per_s", "date"} <= set(keys):
        raise ValueError(
            f"{path} has the keys {keys}: no calibration; make one with "
            "scripts/calibrate.py"
        )
    unknown = record["flops_per_s"].keys() - PEAKS.keys()
    if unknown:
        raise ValueError(
            f"{path} has rates of {', '.join(sorted(unknown))}: allowed are "
            f"{', '.join(PEAKS)}; make it anew with scripts/calibrate.py"
        )
    name, date = record["name"], record["date"]
    peaks = {
        PEAKS[dtype]: _measured(rate, "FLOP/s", name, date)
        for dtype, rate in record["flops_per_s"].items()
    }
    bandwidth = _measured(record["bytes_per_s"], "B/s", name, date)
    whole = _measured({"value": 1.0, "low": 1.0, "high": 1.0}, "1", name, date)
    return Machine(name, peaks, bandwidth, whole, whole)


def time_s(cost: Cost, machine: Machine) -> Interval:
    """Seconds that a program takes on a device.

    The low end has the fused bytes, no trip of a ``while`` with a stated bound, and the
    best rates; the high end the unfused bytes, the stated bounds and the worst rates.
    Of the branches of a ``cond`` they take the fewest and the most FLOPs of each class
    and dtype, so they hold for every branch. The value has the branch with the most
    FLOPs, the stated bounds, and the geometric mean of the fused and the unfused bytes.

    Args:
        cost: from `meter.cost`.
        machine: from `machine` or `calibrated`.

    Returns:
        Seconds, with bounds.

    Raises:
        ValueError: the device has no peak for a dtype.
    """
    share, memory = machine.compute_fraction, machine.memory_fraction

    def seconds(rate: str, parts: Parts, reached: float, bytes_: float) -> float:
        """Seconds at the ``value``, ``low`` or ``high`` of the machine's peaks."""
        peaks = {name: getattr(peak, rate) for name, peak in machine.peak_flops.items()}
        arithmetic = compute_s(parts, peaks, machine.name) / reached
        return max(arithmetic, bytes_ / getattr(machine.bandwidth, rate))

    middle = math.sqrt(cost.bytes * cost.bytes_fused)
    parts = cost.by_class_and_dtype
    return Interval(
        value=seconds("value", parts, share.value, middle / memory.value),
        low=seconds("high", cost.fewest, share.high, cost.bytes_low / memory.high),
        high=seconds("low", cost.most, share.low, cost.bytes / memory.low),
    )


def compute_s(parts: Parts, peaks: Mapping[str, float], name: str) -> float:
    """Seconds of the arithmetic alone, at the peaks.

    Args:
        parts: FLOPs by (class, dtype), from a `Cost`.
        peaks: FLOP/s by names of `PEAKS`.
        name: of the device, for the error.

    Returns:
        Seconds.

    Raises:
        ValueError: the device has no peak for the dtype of a product.
    """
    seconds = 0.0
    for (kind, dtype), flops in parts.items():
        product = kind in ("matmul", "conv")
        ways = UNITS.get(dtype, ()) if product else ((_vector_peak(peaks), 1),)
        way = next((way for way in ways if way[0] in peaks), None)
        if way is None:
            known = [one for one, peak in PEAKS.items() if peak in peaks]
            known = [one for one in known if one in UNITS]  # TF32 is no dtype
            raise ValueError(
                f"dtype {dtype} of {kind}: device {name!r} has peaks for {known} only; "
                "cast the operands to one of them or choose another device"
            )
        peak, passes = way
        seconds += passes * flops / peaks[peak]
    return seconds


def _vector_peak(peaks: Mapping[str, float]) -> str:
    if "fp32" in peaks or not peaks:
        return "fp32"
    return min(peaks, key=lambda peak: peaks[peak])


def _measured(rate: Mapping[str, float], unit: str, name: str, date: str) -> Constant:
    source = f"scripts/calibrate.py on {name}: median, minimum and maximum"
    return Constant(**rate, unit=unit, source=source, date=date, kind="measured")
