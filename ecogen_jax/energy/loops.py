"""How often the bodies of a jaxpr run, and which bodies are plain calls."""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax.extend import core

from ecogen_jax.energy import primitives

# Primitives with a rule in the walks; every other body is a call.
CONTROL = frozenset({"scan", "while", "cond", "shard_map"})
# A kernel: its body works on references to memory, and is no part of the program.
KERNEL = "pallas_call"

WhileTrips = int | Mapping[str, int] | None


def call_bodies(eqn: core.JaxprEqn) -> list[core.Jaxpr]:
    """Bodies that an equation runs once: those of ``jit``, ``checkpoint``, ...

    Args:
        eqn: an equation that is no `CONTROL`.

    Returns:
        The bodies; none for a primitive operation.
    """
    if eqn.primitive.name in primitives.OWN_RULE:
        return []
    return list(core.jaxprs_in_params(eqn.params))


def trips(eqn: core.JaxprEqn, while_trips: WhileTrips) -> tuple[int, int]:
    """Fewest and most trips of a ``scan`` or ``while``.

    Args:
        eqn: the loop.
        while_trips: most trips of every ``while`` whose count the jaxpr does not
            show, or of each by the name of its body function.

    Returns:
        The same number twice, or 0 and the stated bound.

    Raises:
        ValueError: the loop has neither a count nor a bound, or a bound is negative.
    """
    if eqn.primitive.name == "scan":
        return eqn.params["length"], eqn.params["length"]
    bounds = _static_bounds(eqn)
    if bounds is not None:
        count = max(bounds[1] - bounds[0], 0)
        return count, count
    return 0, _stated(eqn, while_trips)


def shards(eqn: core.JaxprEqn) -> int:
    """Number of shards that a ``shard_map`` makes."""
    axes = eqn.params["newly_manual_axes"]
    return math.prod(eqn.params["mesh"].shape[axis] for axis in axes)


def grid_size(eqn: core.JaxprEqn) -> int:
    """How often the body of a ``pallas_call`` runs.

    Raises:
        ValueError: its grid is not known before it runs.
    """
    grid = eqn.params["grid_mapping"].grid
    if not all(isinstance(size, int) for size in grid):
        raise ValueError(
            f"a pallas_call has the grid {grid}, with sizes that the program computes: "
            "count it with a grid of Python integers"
        )
    return math.prod(grid)


def _stated(eqn: core.JaxprEqn, while_trips: WhileTrips) -> int:
    """Bound that the caller gave for a loop."""
    body = eqn.params["body_jaxpr"].jaxpr
    where = body.debug_info.func_src_info or "unnamed"
    name = where.split(" ")[0]
    bound = while_trips.get(name) if isinstance(while_trips, Mapping) else while_trips
    if bound is None:
        raise ValueError(
            f"while loop without a static trip count: body {where}, carry "
            f"{[str(var.aval) for var in body.outvars]}, while_trips={while_trips}; "
            "allowed are lax.scan and lax.fori_loop with Python integers as bounds: "
            f"use one of them, or state a bound: while_trips={{{name!r}: 100}}"
        )
    if bound < 0:
        raise ValueError(f"while_trips of {name} is {bound}: a bound is 0 or more")
    return bound


def _static_bounds(eqn: core.JaxprEqn) -> tuple[int, int] | None:
    """Literal i and n of a loop ``while i < n: i = i + 1``; None for any other."""
    test, body = eqn.params["cond_jaxpr"].jaxpr, eqn.params["body_jaxpr"].jaxpr
    num_test, num_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    start, before = eqn.invars[num_test + num_body :], body.invars[num_body:]
    carry = [id(var) for var in test.invars[num_test:]]
    if [e.primitive.name for e in test.eqns] != ["lt"]:
        return None
    if test.outvars[0] is not test.eqns[0].outvars[0]:
        return None  # the comparison does not end the loop
    counter, limit = test.eqns[0].invars
    if id(counter) not in carry or not _is_integer(counter):
        return None
    i = carry.index(id(counter))
    if not any(_adds_one(e, before[i], body.outvars[i]) for e in body.eqns):
        return None
    if id(limit) in carry:
        n = carry.index(id(limit))
        limit = start[n] if body.outvars[n] is before[n] else None
    first = start[i]
    if isinstance(first, core.Literal) and isinstance(limit, core.Literal):
        return int(first.val), int(limit.val)
    return None


def _is_integer(var: Any) -> bool:
    return jnp.issubdtype(var.aval.dtype, jnp.integer)


def _adds_one(eqn: core.JaxprEqn, before: Any, after: Any) -> bool:
    if eqn.primitive.name != "add" or eqn.outvars[0] is not after:
        return False
    value, step = eqn.invars
    return value is before and isinstance(step, core.Literal) and step.val == 1
