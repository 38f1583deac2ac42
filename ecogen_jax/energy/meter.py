"""Counts the cost of a JAX program from its jaxpr, before it runs.

XLA's ``cost_analysis`` counts the body of a loop once, leaves recomputation out and
reports one device's share of a sharded program. This walk multiplies loop bodies by
their trip counts, counts what ``jax.checkpoint`` recomputes and adds up all shards.
Like a compiler it ignores work that no output needs.

* primitive operations: see `primitives`; calls, derivatives: their bodies.
* ``scan``: body x length; ``fori_loop``: (condition + body) x trips; any other
  ``while``: (condition + body) x the bound that the caller states.
* ``cond``: between the cheapest and the dearest branch; ``shard_map`` and ``pmap``:
  one shard x shards, and what their collectives send. Collectives that a compiler
  adds for sharding constraints are not in the jaxpr and are not counted.
* ``pallas_call``: body x grid, and its operands and results moved once.
"""

import functools
import operator
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax.extend import core
from jax.interpreters import partial_eval

from ecogen_jax.energy import loops, memory, primitives
from ecogen_jax.energy.counts import Cost, Parts
from ecogen_jax.nets.textbook import textbook

_Parts = Counter[tuple[str, str]]


class _Tally(NamedTuple):
    """Counts of a part of a program; fields as in `Cost`."""

    flops: _Parts
    flops_low: int
    fewest: _Parts
    most: _Parts
    bytes: int
    wire: float


class _Scope(NamedTuple):
    """What surrounds a part of a program: stated bounds, and axes with their size."""

    while_trips: loops.WhileTrips
    axis_sizes: Mapping[str, int]


def cost(
    fn: Callable[..., Any],
    *args: Any,
    while_trips: loops.WhileTrips = None,
    **kwargs: Any,
) -> Cost:
    """Counts one call of a function without running it.

    Args:
        fn: any function that JAX can trace.
        *args: its arguments; `jax.ShapeDtypeStruct` will do for arrays.
        while_trips: most trips of each ``while`` loop whose number of trips the
            program does not show: one number for all, or a number for each by the
            name of its body function.
        **kwargs: keyword arguments of the function, likewise.

    Returns:
        FLOPs in total and by class and dtype, bytes, peak memory, bytes on the wire.

    Raises:
        ValueError: a ``while`` loop has neither a static trip count nor a bound.
    """
    # Counts plain layers, not their CPU rewrites: the same on any machine.
    with textbook(True):
        traced = jax.make_jaxpr(fn)(*args, **kwargs).jaxpr
    # A compiler drops what no output needs, such as the primal value under grad.
    live, _ = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))
    tally = _walk(live, _Scope(while_trips, {}))
    bytes_low, bytes_fused = memory.fused_bytes(live, while_trips)
    return Cost(
        flops=float(tally.flops.total()),
        flops_low=float(tally.flops_low),
        by_class_and_dtype=_floats(tally.flops),
        fewest=_floats(tally.fewest),
        most=_floats(tally.most),
        bytes=float(tally.bytes),
        bytes_fused=float(bytes_fused),
        bytes_low=float(bytes_low),
        peak_bytes=float(memory.peak_bytes(live)),
        wire_bytes=float(tally.wire),
    )


def _walk(jaxpr: core.Jaxpr, scope: _Scope) -> _Tally:
    return _sum([_equation(eqn, scope) for eqn in jaxpr.eqns])


def _equation(eqn: core.JaxprEqn, scope: _Scope) -> _Tally:
    name, params = eqn.primitive.name, eqn.params
    if name == "scan":
        return _repeat(_walk(params["jaxpr"].jaxpr, scope), params["length"])
    if name == "while":
        bodies = [params["cond_jaxpr"].jaxpr, params["body_jaxpr"].jaxpr]
        fewest, most = loops.trips(eqn, scope.while_trips)
        step = _sum([_walk(body, scope) for body in bodies])
        rare = _repeat(step, fewest)
        return _repeat(step, most)._replace(
            flops_low=rare.flops_low, fewest=rare.fewest
        )
    if name == "cond":
        return _between([_walk(b.jaxpr, scope) for b in params["branches"]])
    if name == "shard_map":
        mesh, axes = params["mesh"], params["newly_manual_axes"]
        sizes = {**scope.axis_sizes, **{axis: mesh.shape[axis] for axis in axes}}
        one = _walk(params["jaxpr"], scope._replace(axis_sizes=sizes))
        return _repeat(one, loops.shards(eqn))
    if name == loops.KERNEL:
        one = _walk(params["jaxpr"], scope)
        # What its blocks read and write is not known; the kernel moves its arrays once.
        moved = primitives.unfused_bytes(eqn)
        return _repeat(one, loops.grid_size(eqn))._replace(bytes=moved)
    if eqn.primitive.name == "custom_linear_solve":  # others: for gradients
        return _walk(eqn.params["jaxprs"].solve.jaxpr, scope)
    bodies = loops.call_bodies(eqn)
    if bodies:
        return _sum([_walk(body, scope) for body in bodies])
    return _leaf(eqn, scope)


def _leaf(eqn: core.JaxprEqn, scope: _Scope) -> _Tally:
    """Counts of one primitive operation."""
    kind, flops = primitives.flops(eqn)
    parts = Counter({(kind, primitives.dtype(eqn)): flops} if flops else {})
    wire = primitives.wire_bytes(eqn, scope.axis_sizes)
    moved = primitives.unfused_bytes(eqn)
    return _Tally(parts, flops, parts, parts, moved, wire)


def _sum(tallies: list[_Tally]) -> _Tally:
    return _Tally(
        _added([tally.flops for tally in tallies]),
        sum(tally.flops_low for tally in tallies),
        _added([tally.fewest for tally in tallies]),
        _added([tally.most for tally in tallies]),
        sum(tally.bytes for tally in tallies),
        sum(tally.wire for tally in tallies),
    )


def _added(parts: list[_Parts]) -> _Parts:
    total: _Parts = Counter()
    for one in parts:
        total.update(one)
    return total


def _repeat(tally: _Tally, times: int) -> _Tally:
    def repeated(parts: _Parts) -> _Parts:
        return Counter({key: times * count for key, count in parts.items()})

    return _Tally(
        repeated(tally.flops),
        times * tally.flops_low,
        repeated(tally.fewest),
        repeated(tally.most),
        times * tally.bytes,
        times * tally.wire,
    )


def _between(branches: list[_Tally]) -> _Tally:
    """The branch with the most FLOPs, and the bounds that hold for every branch."""
    return _Tally(
        max(branches, key=lambda branch: branch.flops.total()).flops,
        min(branch.flops_low for branch in branches),
        functools.reduce(operator.and_, (branch.fewest for branch in branches)),
        functools.reduce(operator.or_, (branch.most for branch in branches)),
        max(branch.bytes for branch in branches),
        max(branch.wire for branch in branches),
    )


def _floats(parts: _Parts) -> Parts:
    return {key: float(count) for key, count in parts.items() if count}
