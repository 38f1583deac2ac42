"""The layers of our nets, as we have them and in plain JAX, each in a compiled loop."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ecogen_jax.nets.conv import conv
from ecogen_jax.nets.pool import max_pool
from ecogen_jax.nets.upsample import conv_upsampled, upsample

PASSES = 3  # in the loop; the compiler removes a loop of one

Arrays = tuple[jax.Array, ...]
Function = Callable[..., jax.Array]


class Layer(NamedTuple):
    """A layer for square images.

    Attributes:
        name: of net and layer.
        side: of the images that are convolved or pooled, or that upsampling gives.
        inputs: channels of them.
        window: rows and columns of the kernel, or of the blocks that are pooled.
        outputs: channels of the result.
        stride: step of the kernel.
        padding: of a convolution, `SAME` or `VALID`.
        batch: images at once.
        clients: how many run it under `vmap`, each on a kernel of its own; None for one
            net by itself.
        kind: `conv`, `max_pool`, `upsample`, or `conv_upsampled`: a convolution of
            images that come in at half the side and are upsampled first
            (`ecogen_jax.nets.upsample`).
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
    kind: str = "conv"


LAYERS = [
    Layer("lenet5 conv1", 28, 1, 5, 6),
    Layer("lenet5 conv2", 14, 6, 5, 16, padding="VALID"),
    Layer("lenet5_half conv1", 28, 1, 5, 3),
    Layer("lenet5_half conv2", 14, 3, 5, 8, padding="VALID"),
    Layer("lenet5_quarter conv1", 28, 1, 5, 2),
    Layer("lenet5_quarter conv2", 14, 2, 5, 4, padding="VALID"),
    Layer("cnn_fedgen conv1", 28, 1, 3, 6, stride=2),
    Layer("cnn_fedgen conv2", 14, 6, 3, 16, stride=2),
    Layer("cnn_small conv1", 28, 1, 3, 8, stride=2),
    Layer("cnn_small conv2", 14, 8, 3, 16, stride=2),
    Layer("cnn_medium conv1", 28, 1, 3, 16, stride=2),
    Layer("cnn_medium conv2", 14, 16, 3, 32, stride=2),
    Layer("cnn_large conv1", 28, 1, 3, 32, stride=2),
    Layer("cnn_large conv2", 14, 32, 3, 64, stride=2),
    Layer("generator conv1", 14, 32, 3, 32, kind="conv_upsampled"),
    Layer("generator conv2", 14, 32, 3, 16),
    Layer("generator conv3", 28, 4, 3, 1),
    Layer("resnet8 stem", 32, 3, 3, 16, batch=32),
    Layer("resnet8 stage1", 32, 16, 3, 16, batch=32),
    Layer("resnet8 stage2 first", 32, 16, 3, 32, stride=2, batch=32),
    Layer("resnet8 stage2", 16, 32, 3, 32, batch=32),
    Layer("resnet8 stage3 first", 16, 32, 3, 64, stride=2, batch=32),
    Layer("resnet8 stage3", 8, 64, 3, 64, batch=32),
    Layer("generator64 conv1", 16, 128, 3, 128, batch=32, kind="conv_upsampled"),
    Layer("generator64 conv2", 32, 128, 3, 64, batch=8, kind="conv_upsampled"),
    Layer("generator64 conv3", 32, 64, 3, 3, batch=32),
    Layer("lenet5 conv1 clients", 28, 1, 5, 6, batch=32, clients=8),
    Layer("lenet5 conv2 clients", 14, 6, 5, 16, padding="VALID", batch=32, clients=8),
    Layer("cnn_fedgen conv2 clients", 14, 6, 3, 16, stride=2, batch=32, clients=8),
    Layer("cnn_medium conv2 clients", 14, 16, 3, 32, stride=2, batch=32, clients=8),
    Layer("generator conv2 clients", 14, 32, 3, 16, batch=8, clients=8),
    Layer("lenet5 pool1", 28, 6, 2, 6, kind="max_pool"),
    Layer("lenet5 pool2", 10, 16, 2, 16, kind="max_pool"),
    Layer("lenet5 pool1 clients", 28, 6, 2, 6, batch=32, clients=8, kind="max_pool"),
    Layer("generator upsample", 14, 32, 2, 32, kind="upsample"),
    Layer("generator64 upsample", 16, 128, 2, 128, batch=32, kind="upsample"),
]


def fast(layer: Layer) -> Function:
    """The layer as our nets have it."""
    ours: dict[str, Function] = {
        "conv": functools.partial(conv, stride=layer.stride, padding=layer.padding),
        "conv_upsampled": conv_upsampled,
        "max_pool": functools.partial(max_pool, size=layer.window),
        "upsample": upsample,
    }
    return ours[layer.kind]


def plain(layer: Layer) -> Function:
    """The layer by the functions that JAX has for it."""
    theirs: dict[str, Function] = {
        "conv": functools.partial(_convolved, layer),
        "conv_upsampled": lambda x, kernel: _convolved(layer, upsample(x), kernel),
        "max_pool": functools.partial(_pooled, layer),
        "upsample": lambda x: jax.image.resize(
            x, (len(x), layer.side, layer.side, layer.inputs), "nearest"
        ),
    }
    return theirs[layer.kind]


def _convolved(layer: Layer, x: jax.Array, kernel: jax.Array) -> jax.Array:
    strides = (layer.stride, layer.stride)
    names = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, strides, layer.padding, dimension_numbers=names
    )


def _pooled(layer: Layer, x: jax.Array) -> jax.Array:
    block = (1, layer.window, layer.window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, block, block, "VALID")


def arrays(layer: Layer) -> Arrays:
    """Images, kernel if any, and cotangent; with a leading axis for clients."""
    rng = np.random.default_rng(0)
    lead = () if layer.clients is None else (layer.clients,)
    return tuple(
        jnp.asarray(rng.normal(size=lead + shape), jnp.float32)
        for shape in _shapes(layer)
    )


def _shapes(layer: Layer) -> list[tuple[int, ...]]:
    side, window = layer.side, layer.window
    before = side // 2 if "upsample" in layer.kind else side
    images = (layer.batch, before, before, layer.inputs)
    if not layer.kind.startswith("conv"):
        after = side // window if layer.kind == "max_pool" else side
        return [images, (layer.batch, after, after, layer.outputs)]
    after = side if layer.padding == "SAME" else side - window + 1
    after = -(-after // layer.stride)
    kernel = (window, window, layer.inputs, layer.outputs)
    return [images, kernel, (layer.batch, after, after, layer.outputs)]


def flops(layer: Layer, inputs: Arrays) -> float:
    """FLOPs of the textbook for value and both gradients; 0 without a kernel."""
    if not layer.kind.startswith("conv"):
        return 0.0
    return 3 * 2.0 * inputs[-1].size * layer.window**2 * layer.inputs


def loop(layer: Layer, fn: Function) -> Callable[[Arrays], Any]:
    """A compiled loop over value and gradients, each pass waiting for the one before.

    The whole result of a pass is carried, so that the compiler can remove nothing.
    """

    def one(*inputs: jax.Array) -> Arrays:
        value, pullback = jax.vjp(fn, *inputs[:-1])
        return (*pullback(inputs[-1]), value)

    both = one if layer.clients is None else jax.vmap(one)

    def step(carry: tuple[Arrays, Arrays], _: None) -> tuple[Any, None]:
        inputs, outputs = carry
        touched = [
            a.at[(0,) * a.ndim].add(1e-9 * b[(0,) * b.ndim])
            for a, b in zip(inputs, outputs, strict=True)
        ]
        return (tuple(touched), both(*touched)), None

    return jax.jit(lambda a: lax.scan(step, (a, a), None, length=PASSES)[0])
