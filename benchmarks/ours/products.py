"""FLOP/s of single layers, and of the matrix product as the reference.

    python -m benchmarks.ours.products peak
    python -m benchmarks.ours.products ngf64 generator

A unit is a FLOP. A kind of layer is the value and both gradients of all its layers in a
compiled loop, as in `benchmarks.layers`.
"""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import layers
from benchmarks.layers import Layer
from benchmarks.speaker import Speaker
from ecogen_jax import mesh
from ecogen_jax.energy import meter

SIDE, SIDE_ON_GPU = 2048, 8192
"""Of the square matrices whose product is the peak; small ones do not fill a GPU."""

KINDS: dict[str, dict[str, list[Layer]]] = {
    "ngf64": {
        "generator": [
            Layer("conv1", 16, 128, 3, 128, kind="conv_upsampled"),
            Layer("conv2", 32, 128, 3, 64, kind="conv_upsampled"),
        ],
        "images": [  # the layers that make images, and that see them
            Layer("conv3", 32, 64, 3, 3),
            Layer("stem", 32, 3, 3, 16),
        ],
        "resnet8": [
            *2 * [Layer("stage1", 32, 16, 3, 16)],
            Layer("stage2, first", 32, 16, 3, 32, stride=2),
            Layer("stage2", 16, 32, 3, 32),
            Layer("stage3, first", 16, 32, 3, 64, stride=2),
            Layer("stage3", 8, 64, 3, 64),
        ],
        "dense": [Layer("project", 1, 266, 1, 8192)],
    },
    "small": {
        "generator": [
            Layer("conv1", 14, 16, 3, 16, kind="conv_upsampled"),
            Layer("conv2", 14, 16, 3, 8),
            Layer("conv3", 28, 2, 3, 1),
        ],
        "lenet5": [
            Layer("conv1", 28, 1, 5, 6),
            Layer("conv2", 14, 6, 5, 16, padding="VALID"),
        ],
        "dense": [Layer("dense1", 1, 400, 1, 120), Layer("dense2", 1, 120, 1, 84)],
    },
}
"""Layers of each hop by kind, for a batch of 128; a window of 1 is a linear layer."""


def main(what: str, kind: str = "") -> None:
    """Works as long as it gets requests."""
    mesh.start(1)
    work, call = peak() if what == "peak" else of_kind(KINDS[what][kind])
    speaker = Speaker("jax", work=work)
    while True:
        jax.block_until_ready(call())
        speaker.tick()


def peak() -> tuple[float, Callable[[], object]]:
    """FLOPs of a square matrix product, and its function."""
    side = SIDE if jax.default_backend() == "cpu" else SIDE_ON_GPU
    matrix = jnp.ones((side, side))
    product = jax.jit(lambda a, b: a @ b)
    return 2.0 * side**3, lambda: product(matrix, matrix)


def of_kind(kind: list[Layer]) -> tuple[float, Callable[[], object]]:
    """FLOPs of value and both gradients of some layers, and their function."""
    calls = [
        (
            layers.loop(layer, layers.fast(layer) if layer.window > 1 else linear),
            layers.arrays(layer),
        )
        for layer in kind
    ]
    work = sum(flops(fn, inputs) for fn, inputs in calls)
    return work, lambda: [fn(inputs) for fn, inputs in calls]


def flops(fn: Callable[..., Any], *arguments: Any) -> float:
    """FLOPs of the convolutions and matrix products of a call, as in the textbook."""
    parts = meter.cost(fn, *arguments).by_class_and_dtype.items()
    return sum(done for (kind, _), done in parts if kind in ("matmul", "conv"))


def linear(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A linear layer, with the axes of a convolution of one pixel."""
    return (x.reshape(len(x), -1) @ kernel[0, 0])[:, None, None]


if __name__ == "__main__":
    main(*sys.argv[1:])
