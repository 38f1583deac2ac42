"""Times the layers of our nets against plain JAX: convolutions, pooling, upsampling.

    python -m benchmarks.conv [--out benchmarks/results] [--repeats 7]

A row is the value and all gradients inside a compiled loop, as in a training step: of
one net, or of one net for each of 8 clients under `vmap`. The two versions alternate,
A B A B, on one core; a row has medians of CPU time for one pass, and the median ratio
of neighbouring passes, which is judged.

The bar is 0.9 (ours takes at most 10 % longer), and 3 where plain JAX is slow: where it
takes more than `SLOW` times the least time of the layer. The least time is that of its
FLOPs at the speed of a matrix product, or that of reading its inputs and writing its
results once at the speed of memory, whichever is longer. Both speeds are measured in
the same run, on the same core; ours has no part in the rule.

Writes `conv_bars.csv` and `conv_bars.md`. Takes minutes, since plain JAX is slow.
"""

import argparse
import math
import os
import pathlib
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

if __name__ == "__main__":  # before JAX counts the cores
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import jax
import jax.numpy as jnp
import pandas as pd
from jax import lax
from rich.console import Console

from benchmarks import layers, output, rows
from benchmarks.layers import LAYERS, PASSES, Arrays, Layer
from benchmarks.ours import products
from benchmarks.workers import Samples
from ecogen_jax.report import tables
from ecogen_jax.run.command import positive
from papers_repro.origin import commit, processor

SECONDS = 6.0  # limit per row after compilation, except for three repeats
SLOW = 10.0  # times the least time
FASTER, NO_SLOWER = 3.0, 0.9  # the bars
COPIED = 2**24  # floats in the array of `memory`, 64 MiB: more than caches hold
PEERS = {"max_pool": "lax.reduce_window", "upsample": "jax.image.resize"}


class Speeds(NamedTuple):
    """What a core can do.

    Attributes:
        flops: FLOP/s of a matrix product.
        memory: bytes/s, read and written, of an addition to a large array.
    """

    flops: float
    memory: float


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default="benchmarks/results")
    parser.add_argument(
        "--repeats", type=positive, default=7, help="most pairs a row, 3 at least"
    )
    options = parser.parse_args()
    try:
        output.prepare(options.out, "conv_bars.csv", "conv_bars.md")
    except ValueError as error:
        parser.error(str(error))
    console = Console(width=100)
    speeds = measured_speeds()
    judged: list[dict[str, Any]] = []
    about = {
        "machine": f"{machine()}: matrix product {speeds.flops / 1e9:.3g} GFLOP/s, "
        f"memory {speeds.memory / 1e9:.3g} GB/s",
        "versions": versions(),
        "command": shlex.join(["python", "-m", "benchmarks.conv", *sys.argv[1:]]),
        "commit": commit(),
    }
    for layer in LAYERS:
        with console.status(layer.name):
            judged.append(judge(layer, speeds, *measure(layer, options.repeats)))
    every = [row | about for row in judged]
    rows.write("conv_bars", every, options.out)
    frame = rows.readable(pd.DataFrame(every).reindex(columns=list(rows.COLUMNS)))
    shown = frame[["id", "ours", "theirs", "ratio", "bar", "verdict"]]
    console.print(tables.to_rich(tables.from_frame("Layers, CPU ms", shown)))


def measure(layer: Layer, repeats: int) -> tuple[list[float], list[float]]:
    """Times one layer.

    Args:
        layer: what to time.
        repeats: most pairs; slow layers get fewer, at least three.

    Returns:
        CPU seconds of one pass, of ours and of plain JAX, in turns.
    """
    inputs = layers.arrays(layer)
    both = [layers.loop(layer, fn(layer)) for fn in (layers.fast, layers.plain)]
    for fn in both:
        jax.block_until_ready(fn(inputs))
    pairs: list[list[float]] = []
    start = time.perf_counter()
    while len(pairs) < max(repeats, 3):
        pairs.append([cpu_s(fn, inputs) / PASSES for fn in both])
        if len(pairs) >= 3 and time.perf_counter() - start > SECONDS:
            break
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]


def judge(
    layer: Layer, speeds: Speeds, ours: list[float], theirs: list[float]
) -> dict[str, Any]:
    """The row of a layer.

    Args:
        layer: what was timed.
        speeds: of the core.
        ours: from `measure`.
        theirs: likewise.
    """
    slowness = statistics.median(theirs) / least_s(layer, speeds)
    images = f"{layer.clients or 1} x {layer.batch} images"
    bar = {
        "id": f"conv.{layer.name.replace(' ', '.')}",
        "ours": "ours",
        "peers": "theirs",
        "peer": PEERS.get(layer.kind, "lax"),
        "quantity": f"{images}; plain JAX takes {slowness:.3g} times the least",
        "unit": "CPU ms",
        "scale": 1e3,
        "direction": ">=",
        "bar": FASTER if slowness > SLOW else NO_SLOWER,
        "aim": math.nan,
    }
    about = {"jax": jax.__version__}
    found = {"ours": Samples(ours, about), "theirs": Samples(theirs, about)}
    return rows.judge(bar, found) | {"clock": "cpu", "cores": 1}


def least_s(layer: Layer, speeds: Speeds) -> float:
    """The least seconds of a pass, see the top of this file."""
    inputs = layers.arrays(layer)
    moved = 2 * sum(array.nbytes for array in inputs)  # results have the same shapes
    return max(layers.flops(layer, inputs) / speeds.flops, moved / speeds.memory)


def measured_speeds() -> Speeds:
    """Those of this core, the medians of five."""
    work, product = products.peak()
    add = jax.jit(lambda x: lax.scan(lambda x, _: (x + 1, None), x, length=PASSES)[0])
    array = jnp.zeros(COPIED)
    moved = 2 * array.nbytes * PASSES
    product_s, add_s = (
        statistics.median([cpu_s(fn) for _ in range(6)][1:])  # the first compiles
        for fn in (product, lambda: add(array))
    )
    return Speeds(work / product_s, moved / add_s)


def cpu_s(fn: Callable[..., Any], *inputs: Arrays) -> float:
    """CPU seconds of a call: on one core, the time that it would take alone."""
    start = time.process_time()
    jax.block_until_ready(fn(*inputs))
    return time.process_time() - start


def machine() -> str:
    """The processor's name, and how much of it is used."""
    return f"{processor()}, one core"


def versions() -> str:
    """Python and JAX."""
    return f"python {platform.python_version()}, jax {jax.__version__}"


if __name__ == "__main__":
    main()
