"""The bridge from flax nnx modules to pure functions.

Nets are defined with nnx; all other code uses a `Net`, two pure functions over plain
dictionaries of arrays. Only this file splits and merges modules.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx, struct

from ecogen_jax.nets.affine import affine
from ecogen_jax.types import Key, PyTree


@struct.dataclass
class Variables:
    """The arrays of one net.

    Attributes:
      params: trained arrays, a nested dictionary.
      stats: running mean and variance of every BatchNorm input,
        `{layer: {"mean": [channels], "var": [channels]}}`.
    """

    params: PyTree
    stats: PyTree


class Output(NamedTuple):
    """The result of one call of a net.

    Attributes:
      value: logits `[batch, classes]`, or images for a generator.
      stats: running statistics after the call (unchanged unless `train`).
      moments: mean and biased variance of this batch at every BatchNorm input,
        a tree of the same structure as `stats`; see `weighing`.
      activations: outputs of the hidden layers: the map of each spatial stage,
        `[batch, height, width, channels]`, then the features before the linear
        classifier, `[batch, features]`. Empty for a generator.
    """

    value: jax.Array
    stats: PyTree
    moments: PyTree
    activations: tuple[jax.Array, ...]


class Apply(Protocol):
    """Calls a net on its inputs; `train` normalises by the batch statistics."""

    def __call__(self, variables: Variables, *inputs: jax.Array, train: bool) -> Output:
        """Returns the value, the statistics after the call and the moments."""
        ...


class Net(NamedTuple):
    """A net as two pure functions."""

    init: Callable[[Key], Variables]
    apply: Apply


class Moments(nnx.Variable[Any]):
    """Mean or variance of the last batch that a BatchNorm layer saw."""


class BatchNorm(nnx.Module):
    """Batch normalisation that also returns the moments of its input.

    Ioffe and Szegedy 2015; the biased batch variance is used both to normalise and
    in the running average, so that the loss on statistics compares like with like.
    """

    momentum = 0.9
    epsilon = 1e-5

    def __init__(self, features: int) -> None:
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))
        self.batch_mean = Moments(jnp.zeros(features))
        self.batch_var = Moments(jnp.ones(features))

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalises over all axes but the last."""
        mean, var = _moments(x)
        self.batch_mean.set_value(mean)
        self.batch_var.set_value(var)
        if train:
            _follow(self.mean, mean, self.momentum)
            _follow(self.var, var, self.momentum)
        else:
            mean, var = self.mean[...], self.var[...]
        factor = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
        return affine(x, factor, self.bias[...] - mean * factor)


class Recorder(nnx.Module):
    """Keeps running statistics of its input, and returns the input unchanged.

    It gives a net without BatchNorm the statistics for the loss on statistics
    (`losses.batchnorm_statistics`). Activations without normalisation have no common
    scale, so the moments of a batch are reported in units of the recorded standard
    deviation: `m + (m(x) - m) / s` for the recorded mean `m` and deviation `s`,
    and `s^2 + (v(x) - s^2) / s^2` for the variance.
    """

    momentum = 0.99
    epsilon = 1e-3

    def __init__(self, features: int) -> None:
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))
        self.batch_mean = Moments(jnp.zeros(features))
        self.batch_var = Moments(jnp.ones(features))

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `x` as it came; moments are taken over all axes but the last."""
        mean, var = _moments(x)
        scale = self.var[...] + self.epsilon
        self.batch_mean.set_value(
            self.mean[...] + (mean - self.mean[...]) * jax.lax.rsqrt(scale)
        )
        self.batch_var.set_value(self.var[...] + (var - self.var[...]) / scale)
        if train:
            _follow(self.mean, mean, self.momentum)
            _follow(self.var, var, self.momentum)
        return x


_shares: ContextVar[jax.Array | None] = ContextVar("shares", default=None)


@contextlib.contextmanager
def weighing(shares: jax.Array) -> Iterator[None]:
    """Context in which moments are weighted over the images of a batch, during tracing.

    Args:
      shares: weights of the images, `[batch]`, which sum to 1.
    """
    token = _shares.set(shares)
    try:
        yield
    finally:
        _shares.reset(token)


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance over all axes but the last, see `weighing`."""
    axes, shares = tuple(range(x.ndim - 1)), _shares.get()

    def mean_of(values: jax.Array) -> jax.Array:
        if shares is None:
            return jnp.mean(values, axes)
        weights = len(shares) * shares.reshape(-1, *(1 for _ in x.shape[1:]))
        return jnp.mean(weights * values, axes)

    mean = mean_of(x)
    var = mean_of(jnp.square(x)) - jnp.square(mean)
    # Rounding can give a constant input a variance below zero, and then NaN.
    return mean, jnp.maximum(var, 0.0)


def _follow(running: nnx.BatchStat[Any], batch: jax.Array, momentum: float) -> None:
    running.set_value(momentum * running[...] + (1 - momentum) * batch)


def functional(build: Callable[[nnx.Rngs], nnx.Module]) -> Net:
    """Turns a module into a `Net`.

    Args:
      build: makes the module from its random streams; called once abstractly (no
        array is allocated) and once for each `Net.init`. The module returns its value
        and its hidden activations, see `Output`.

    Returns:
      The net. `init` and `apply` are pure and can be jitted, mapped and
      differentiated.
    """
    abstract = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    graph, params, stats, moments = _split(abstract)

    def init(key: Key) -> Variables:
        _, params, stats, _ = _split(build(nnx.Rngs(key)))
        return Variables(nnx.to_pure_dict(params), nnx.to_pure_dict(stats))

    def apply(variables: Variables, *inputs: jax.Array, train: bool) -> Output:
        blank = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), moments)
        module = nnx.merge(
            graph,
            _filled(params, variables.params),
            _filled(stats, variables.stats),
            blank,
            copy=True,
        )
        value, activations = module(*inputs, train=train)
        _, _, *states = _split(module)
        after, seen = map(nnx.to_pure_dict, states)
        # Leaves are sorted by name: batch_mean before batch_var, and mean before var.
        return Output(
            value,
            after,
            jax.tree.unflatten(jax.tree.structure(after), jax.tree.leaves(seen)),
            activations,
        )

    return Net(init, apply)


def _split(module: nnx.Module) -> tuple[Any, PyTree, PyTree, PyTree]:
    """Graph, parameters, statistics and moments."""
    graph, *states = nnx.split(module, nnx.Param, nnx.BatchStat, Moments)
    params, stats, moments = states
    return graph, params, stats, moments


def _filled(template: PyTree, values: PyTree) -> PyTree:
    state = jax.tree.map(lambda leaf: leaf, template)
    nnx.replace_by_pure_dict(state, values)
    return state


def num_params(net: Net) -> int:
    """Number of trained scalars, counted without allocating any."""
    shapes = jax.eval_shape(net.init, jax.random.key(0)).params
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))
