"""Measures the speed of this machine: FLOP/s of a matrix product, B/s of a stream.

`--dtype float32` times products in full precision, which is what the fp32 peak of a
datasheet means. JAX's default takes fewer bits for them, and less time, on GPUs (TF32)
and TPUs (bfloat16): `--dtype tensorfloat32` times that. Programs are predicted with it,
if it was measured, unless they ask for full precision.
"""

import argparse
import datetime
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from ecogen_jax.energy import roofline
from ecogen_jax.report import files
from ecogen_jax.run import measure

EXAMPLE = """example:
  python scripts/calibrate.py --output calibration.json
  python scripts/calibrate.py --device a100 --dtype bfloat16   # run it on an A100

Takes seconds. The file holds absolute rates. In Python
`ecogen_jax.energy.roofline.calibrated` reads it, and `roofline.time_s` takes them in
place of the default share of a datasheet's peak; scripts/energy.py does not read it.
With --device the shares are printed.
"""
REPEATS = 5


def main() -> int:
    """Measures, prints and writes; returns 2 on bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default="calibration.json",
        help="the file that is written (default: %(default)s)",
    )
    parser.add_argument("--device", help="name in the table of devices to compare with")
    parser.add_argument(
        "--dtype", nargs="+", default=["float32"], choices=sorted(roofline.PEAKS)
    )
    parser.add_argument("--size", type=int, default=2048, help="side of the matrices")
    args = parser.parse_args()
    try:
        files.check_output("--output", args.output)
        datasheet = roofline.machine(args.device) if args.device else None
        if args.device:
            warn_of_another(args.device, jax.devices()[0].device_kind)
        record = calibrate(args.device or _host(), args.dtype, args.size)
        lines = report(record, datasheet)
        with files.accessing(args.output):
            args.output.write_text(json.dumps(record, indent=1) + "\n")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    lines.append(f"written to {args.output}")
    Console().print("\n".join(lines), soft_wrap=True, markup=False)
    return 0


def warn_of_another(device: str, kind: str) -> None:
    """Warns if the measured device does not look like the named one.

    Args:
        device: of `--device`.
        kind: JAX's name of the device that it runs on, such as "NVIDIA H100 80GB".
    """
    model = device.rpartition("_")[2]
    if model not in kind.lower() or measure.is_variant(kind):
        print(
            f"warning: --device is {device}, but JAX runs on {kind!r}: unless that is "
            "the same device, the shares and the name in the file are wrong",
            file=sys.stderr,
        )


def calibrate(name: str, dtypes: list[str], size: int) -> dict[str, Any]:
    """Measures the default device of JAX.

    Args:
        name: of the machine, in the record.
        dtypes: of the products.
        size: side of the matrices; the stream runs over 8 times their elements.

    Returns:
        The record that `roofline.calibrated` reads.

    Raises:
        ValueError: the size is not positive.
    """
    if size < 1:
        raise ValueError(f"--size is {size}: allowed is 1 or more, 2048 is usual")
    return {
        "name": name,
        "date": datetime.date.today().isoformat(),
        "jax": jax.__version__,
        "jax_device": jax.devices()[0].device_kind,
        "flops_per_s": {dtype: matmul_rate(dtype, size) for dtype in dtypes},
        "bytes_per_s": stream_rate(8 * size**2),
    }


def matmul_rate(dtype: str, size: int) -> dict[str, float]:
    """FLOP/s of a square product: median, min and max.

    Args:
        dtype: `float32` in full precision, `tensorfloat32` for float32 in JAX's default
            precision, or another dtype.
        size: side of the matrices.
    """
    precision = jax.lax.Precision.HIGHEST if dtype == "float32" else None
    single = dtype == "tensorfloat32"
    matrix = jnp.ones((size, size), jnp.float32 if single else dtype)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
    return _rates(2 * size**3, lambda: product(matrix, matrix))


def stream_rate(elements: int) -> dict[str, float]:
    """B/s of a + s b, the triad of STREAM: reads two arrays and writes one."""
    first, second = jnp.ones(elements), jnp.zeros(elements)
    triad = jax.jit(lambda a, b: a + 3.0 * b)
    return _rates(3 * first.nbytes, lambda: triad(first, second))


def report(record: dict[str, Any], datasheet: roofline.Machine | None) -> list[str]:
    """Lines to print: rates, and their share of a device's peaks if one is given."""
    lines = []
    for dtype, rate in record["flops_per_s"].items():
        lines.append(f"{dtype}: {rate['value'] / 1e9:.1f} GFLOP/s")
        peak = datasheet and datasheet.peak_flops.get(roofline.PEAKS[dtype])
        if peak:
            lines[-1] += f", {rate['value'] / peak.value:.1%} of the peak"
    moved = record["bytes_per_s"]["value"]
    lines.append(f"stream: {moved / 1e9:.1f} GB/s")
    if datasheet:
        lines[-1] += f", {moved / datasheet.bandwidth.value:.1%} of the peak"
    return lines


def _rates(amount: int, call: Callable[[], jax.Array]) -> dict[str, float]:
    """Amount per second over `REPEATS` calls, after one that compiles."""
    jax.block_until_ready(call())
    rates = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(call())
        rates.append(amount / (time.perf_counter() - start))
    return {"value": statistics.median(rates), "low": min(rates), "high": max(rates)}


def _host() -> str:
    return f"this {jax.devices()[0].device_kind}"


if __name__ == "__main__":
    sys.exit(main())
