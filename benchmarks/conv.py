"""Times the package's convolution against plain `lax`, on the layers of our nets.

    python -m benchmarks.conv [--out benchmarks/results] [--repeats 7]

A row is the value and both gradients inside a compiled loop, as in a training step: of
one net, or of one net for each of 8 clients under `vmap`. The two versions alternate,
A B A B, on one core; a row has medians of CPU time for one pass, and the median ratio
of neighbouring passes. Takes minutes, since plain `lax` is slow.
"""

import argparse
import functools
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
import numpy as np
import pandas as pd
from jax import lax
from rich.console import Console

from benchmarks import output
from ecogen_jax.nets.conv import conv
from ecogen_jax.nets.upsample import conv_upsampled, upsample
from ecogen_jax.report import tables
from ecogen_jax.run.command import positive
from papers_repro.origin import commit, processor

PASSES = 3  # in the loop; the compiler removes a loop of one
SECONDS = 6.0  # limit per row after compilation, except for three repeats

Arrays = tuple[jax.Array, ...]
Convolution = Callable[..., jax.Array]


class Layer(NamedTuple):
    """A convolution of square images.

    Attributes:
        name: of net and layer.
        side: of the images that are convolved.
        inputs: channels of them.
        window: rows and columns of the kernel.
        outputs: channels of the result.
        stride: step of the window.
        padding: `SAME` or `VALID`.
        batch: images at once.
        clients: how many run it under `vmap`, each on a kernel of its own; None for one
            net by itself.
        upsampled: whether the images come in at half the side, and the layer upsamples
            them first (`ecogen_jax.nets.upsample`).
    """

    name: str
    side: int
    inputs: int
    window: int
    outputs: int
    stride: int = 1
    padding: str = "SAME"
    batch: int = 128
    clients: int | None = None
    upsampled: bool = False


LAYERS = [
    Layer("lenet5 conv1", 28, 1, 5, 6),
    Layer("lenet5 conv2", 14, 6, 5, 16, padding="VALID"),
    Layer("lenet5_half conv1", 28, 1, 5, 3),
    Layer("lenet5_half conv2", 14, 3, 5, 8, padding="VALID"),
    Layer("lenet5_quarter conv1", 28, 1, 5, 2),
    Layer("lenet5_quarter conv2", 14, 2, 5, 4, padding="VALID"),
    Layer("cnn_fedgen conv1", 28, 1, 3, 6, stride=2),
    Layer("cnn_fedgen conv2", 14, 6, 3, 16, stride=2),
    Layer("cnn_small conv2", 14, 8, 3, 16, stride=2),
    Layer("cnn_medium conv1", 28, 1, 3, 16, stride=2),
    Layer("cnn_medium conv2", 14, 16, 3, 32, stride=2),
    Layer("generator conv1", 14, 32, 3, 32, upsampled=True),
    Layer("generator conv2", 14, 32, 3, 16),
    Layer("generator conv3", 28, 4, 3, 1),
    Layer("resnet8 stem", 32, 3, 3, 16, batch=32),
    Layer("resnet8 stage1", 32, 16, 3, 16, batch=32),
    Layer("resnet8 stage2, first", 32, 16, 3, 32, stride=2, batch=32),
    Layer("resnet8 stage2", 16, 32, 3, 32, batch=32),
    Layer("resnet8 stage3", 8, 64, 3, 64, batch=32),
    Layer("generator of ngf 64, conv1", 16, 128, 3, 128, batch=32, upsampled=True),
    Layer("generator of ngf 64, conv2", 32, 128, 3, 64, batch=8, upsampled=True),
    Layer("generator of ngf 64, conv3", 32, 64, 3, 3, batch=32),
    Layer("lenet5 conv1, clients", 28, 1, 5, 6, batch=32, clients=8),
    Layer("lenet5 conv2, clients", 14, 6, 5, 16, padding="VALID", batch=32, clients=8),
    Layer("cnn_fedgen conv2, clients", 14, 6, 3, 16, stride=2, batch=32, clients=8),
    Layer("cnn_medium conv2, clients", 14, 16, 3, 32, stride=2, batch=32, clients=8),
    Layer("generator conv2, clients", 14, 32, 3, 16, batch=8, clients=8),
]


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default="benchmarks/results")
    parser.add_argument(
        "--repeats", type=positive, default=7, help="most pairs a row, 3 at least"
    )
    options = parser.parse_args()
    try:
        output.prepare(options.out, "conv.csv", "conv.md")
    except ValueError as error:
        parser.error(str(error))
    console = Console(width=100)
    rows = []
    for layer in LAYERS:
        with console.status(layer.name):
            rows.append(measure(layer, options.repeats))
    frame = pd.DataFrame(rows)
    command = shlex.join(["python", "-m", "benchmarks.conv", *sys.argv[1:]])
    about = {"machine": machine(), "versions": versions(), "command": command}
    write(frame.assign(**about, commit=commit()), options.out)
    console.print(tables.to_rich(tables.from_frame("Convolutions", frame)))


def measure(layer: Layer, repeats: int) -> dict[str, Any]:
    """Times one layer.

    Args:
        layer: what to time.
        repeats: most pairs; slow layers get fewer, at least three.

    Returns:
        A row: layer and sizes, `ours_ms` and `lax_ms` of one pass, and `ratio`, the
        median of `lax` over ours, with its lowest and highest.
    """
    inputs = arrays(layer)
    ours, theirs = loop(layer, fast(layer)), loop(layer, plain(layer))
    for fn in (ours, theirs):
        jax.block_until_ready(fn(inputs))
    pairs: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(pairs) < max(repeats, 3):
        pairs.append((cpu_ms(ours, inputs), cpu_ms(theirs, inputs)))
        if len(pairs) >= 3 and time.perf_counter() - start > SECONDS:
            break
    ratios = [b / a for a, b in pairs]
    return {
        "layer": layer.name,
        "images": f"{layer.clients or 1} x {layer.batch}",
        "ours_ms": statistics.median(a for a, _ in pairs),
        "lax_ms": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "pairs": len(pairs),
    }


def fast(layer: Layer) -> Convolution:
    """The layer as our nets have it."""
    if layer.upsampled:
        return conv_upsampled
    return functools.partial(conv, stride=layer.stride, padding=layer.padding)


def plain(layer: Layer) -> Convolution:
    """The layer in plain `lax`."""

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            upsample(x) if layer.upsampled else x,
            kernel,
            (layer.stride, layer.stride),
            layer.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    return convolve


def arrays(layer: Layer) -> Arrays:
    """Images, kernel and cotangent; with a leading axis if there are clients."""
    rng = np.random.default_rng(0)
    side, window = layer.side, layer.window
    before = side // 2 if layer.upsampled else side
    after = side if layer.padding == "SAME" else side - window + 1
    after = -(-after // layer.stride)
    shapes = [
        (layer.batch, before, before, layer.inputs),
        (window, window, layer.inputs, layer.outputs),
        (layer.batch, after, after, layer.outputs),
    ]
    lead = () if layer.clients is None else (layer.clients,)
    return tuple(
        jnp.asarray(rng.normal(size=lead + shape), jnp.float32) for shape in shapes
    )


def loop(layer: Layer, fn: Convolution) -> Callable[[Arrays], Any]:
    """A compiled loop over value and gradients, each pass waiting for the one before.

    The whole result of a pass is carried, so that the compiler can remove nothing.
    """

    def one(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> Arrays:
        value, pullback = jax.vjp(fn, x, kernel)
        grad_x, grad_kernel = pullback(cotangent)
        return grad_x, grad_kernel, value

    both = one if layer.clients is None else jax.vmap(one)

    def step(carry: tuple[Arrays, Arrays], _: None) -> tuple[Any, None]:
        inputs, outputs = carry
        touched = [
            a.at[(0,) * a.ndim].add(1e-9 * b[(0,) * b.ndim])
            for a, b in zip(inputs, outputs, strict=True)
        ]
        return (tuple(touched), both(*touched)), None

    return jax.jit(lambda a: lax.scan(step, (a, a), None, length=PASSES)[0])


def cpu_ms(fn: Callable[[Arrays], Any], inputs: Arrays) -> float:
    """CPU milliseconds of one pass: on one core, the time that it would take alone."""
    start = time.process_time()
    jax.block_until_ready(fn(inputs))
    return (time.process_time() - start) * 1e3 / PASSES


def machine() -> str:
    """The processor's name, and how much of it is used."""
    return f"{processor()}, one core"


def versions() -> str:
    """Python and JAX."""
    return f"python {platform.python_version()}, jax {jax.__version__}"


def write(frame: pd.DataFrame, folder: pathlib.Path) -> None:
    """Writes `conv.csv`, and `conv.md` with what all rows share below the table."""
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(
        folder / "conv.csv", index=False, float_format="%.4g", lineterminator="\n"
    )
    shared = [f"{name}: {frame.pop(name)[0]}" for name in frame.columns[-4:]]
    title = "Convolutions, value and both gradients in a loop, CPU ms of one pass"
    page = tables.to_markdown(tables.from_frame(title, frame))
    (folder / "conv.md").write_text("\n".join([page, *(f"- {s}" for s in shared), ""]))


if __name__ == "__main__":
    main()
