"""Bytes that a program must move after fusion, and bytes that are alive at once.

Both read the jaxpr in order, with plain calls inlined.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from jax.extend import core

from ecogen_jax.energy import loops, primitives


class _Op(NamedTuple):
    """An equation with numbers for its arrays; literals are left out as None."""

    eqn: core.JaxprEqn
    ins: list[int | None]
    outs: list[int]


class _Program(NamedTuple):
    """A jaxpr without calls.

    Attributes:
        inputs: constants and arguments.
        ops: primitive operations and `loops.CONTROL`, in order.
        outputs: results.
        sizes: bytes of every array, by its number.
    """

    inputs: list[int]
    ops: list[_Op]
    outputs: list[int | None]
    sizes: list[int]


def fused_bytes(
    jaxpr: core.Jaxpr, while_trips: loops.WhileTrips = None
) -> tuple[int, int]:
    """Bytes that cross the memory bus if everything between two loops is one kernel.

    A program, and each trip of a loop, reads each of its inputs once and writes each
    of its results once; everything in between stays on chip. What straight code and
    loops or Pallas kernels hand to each other goes through memory. For an array that is
    only sliced or gathered from, only the slices are read; for an array that is updated
    in place, only the updates are written, and not read again. The carry of a loop goes
    through memory once per trip, so this is no lower bound for a loop whose state fits
    on chip.

    The fewest bytes take the cheapest branch of each ``cond`` and no trip of a
    ``while`` with a stated bound, the most bytes the dearest branch and the bound.

    Args:
        jaxpr: the program.
        while_trips: as in `loops.trips`.

    Returns:
        Fewest and most bytes read and written, over all shards; the same number twice
        where no ``cond`` and no such ``while`` is in the program.
    """
    program = _flatten(jaxpr)
    low = high = _straight_bytes(program)
    for op in program.ops:
        if op.eqn.primitive.name == loops.KERNEL:
            moved = _total(program.sizes, [*op.ins, *op.outs])
            low, high = low + moved, high + moved
        inner = [fused_bytes(body, while_trips) for body in _inner(op.eqn)]
        if not inner:
            continue
        lows, highs = zip(*inner, strict=True)
        if op.eqn.primitive.name == "cond":
            low, high = low + min(lows), high + max(highs)
        else:
            fewest, most = _times(op.eqn, while_trips)
            low, high = low + fewest * sum(lows), high + most * sum(highs)
    return low, high


def peak_bytes(jaxpr: core.Jaxpr) -> int:
    """Most bytes alive at once, if operations run in order and nothing is fused.

    Arguments and constants are held throughout, as without donation; an intermediate
    is held from its operation to its last use; a loop holds its carry twice. An upper
    bound on the data itself: workspaces and padding of kernels are not in it.

    Args:
        jaxpr: the program.

    Returns:
        Bytes, over all shards.
    """
    program = _flatten(jaxpr)
    sizes, kept = program.sizes, {*program.inputs, *program.outputs}
    last: dict[int | None, int] = {}
    for position, op in enumerate(program.ops):
        last.update(dict.fromkeys([*op.ins, *op.outs], position))
    alive = peak = sum(sizes[i] for i in program.inputs)
    for position, op in enumerate(program.ops):
        alive += _total(sizes, op.outs)
        peak = max(peak, alive + _within(op, sizes))
        touched = {*op.ins, *op.outs} - kept
        alive -= _total(sizes, [i for i in touched if last[i] == position])
    return peak


def _flatten(jaxpr: core.Jaxpr) -> _Program:
    """Numbers every array and puts bodies in place of their calls."""
    program = _Program(inputs=[], ops=[], outputs=[], sizes=[])
    known = {var: _number(program, var) for var in jaxpr.invars}
    program.inputs.extend(known.values())
    program.outputs.extend(_inline(program, jaxpr, known))
    return program


def _inline(
    program: _Program, jaxpr: core.Jaxpr, known: Mapping[Any, int | None]
) -> list[int | None]:
    """Appends the operations of a body to a program; numbers of its results."""
    constants = {var: _number(program, var) for var in jaxpr.constvars}
    program.inputs.extend(constants.values())
    numbers = {**known, **constants}
    for eqn in jaxpr.eqns:
        ins = _look_up(numbers, eqn.invars)
        body = _call(eqn)
        if eqn.primitive.name in primitives.ALIASES:
            numbers.update(zip(eqn.outvars, ins, strict=True))
        elif body is None:
            made = [_number(program, var) for var in eqn.outvars]
            program.ops.append(_Op(eqn, ins, made))
            numbers.update(zip(eqn.outvars, made, strict=True))
        else:
            given = dict(zip(body.invars, ins, strict=True))
            outs = _inline(program, body, given)
            numbers.update(zip(eqn.outvars, outs, strict=True))
    return _look_up(numbers, jaxpr.outvars)


def _number(program: _Program, var: Any) -> int:
    """A new number for an array."""
    program.sizes.append(primitives.num_bytes(var))
    return len(program.sizes) - 1


def _look_up(numbers: Mapping[Any, int | None], variables: Any) -> list[int | None]:
    return [None if isinstance(v, core.Literal) else numbers[v] for v in variables]


def _call(eqn: core.JaxprEqn) -> core.Jaxpr | None:
    """Body of a plain call; None for anything else."""
    if eqn.primitive.name in (*loops.CONTROL, loops.KERNEL):
        return None
    bodies = loops.call_bodies(eqn)
    return bodies[0] if len(bodies) == 1 else None


def _inner(eqn: core.JaxprEqn) -> list[core.Jaxpr]:
    """Bodies that are programs of their own."""
    name, params = eqn.primitive.name, eqn.params
    if name == "while":
        return [params["cond_jaxpr"].jaxpr, params["body_jaxpr"].jaxpr]
    if name in loops.CONTROL:
        return list(core.jaxprs_in_params(params))
    return []


def _straight_bytes(program: _Program) -> int:
    """Bytes that code outside of loops and kernels reads and writes.

    It hands arrays to them, and gets their results, through memory.
    """
    apart = [op for op in program.ops if _is_apart(op.eqn)]
    between = program._replace(
        inputs=[*program.inputs, *(i for op in apart for i in op.outs)],
        outputs=[*program.outputs, *(i for op in apart for i in op.ins)],
    )
    straight = [op for op in program.ops if not (_inner(op.eqn) or _is_apart(op.eqn))]
    return _read(between, straight) + _written(between, straight)


def _is_apart(eqn: core.JaxprEqn) -> bool:
    """Whether nothing is fused with it: a loop, a branch or a kernel.

    The body of a ``shard_map`` is compiled with what surrounds it.
    """
    name = eqn.primitive.name
    return name == loops.KERNEL or (bool(_inner(eqn)) and name != "shard_map")


def _times(eqn: core.JaxprEqn, while_trips: loops.WhileTrips) -> tuple[int, int]:
    """Fewest and most times that the bodies of a loop or ``shard_map`` run."""
    if eqn.primitive.name == "shard_map":
        return loops.shards(eqn), loops.shards(eqn)
    return loops.trips(eqn, while_trips)


def _read(program: _Program, ops: list[_Op]) -> int:
    """Bytes of the program's inputs that operations read."""
    sizes, whole, parts = program.sizes, Counter[int](), Counter[int]()
    # An array that was updated in place -> the array before, and the bytes updated.
    updated: dict[int, tuple[int, int]] = {}
    for op in ops:
        name = op.eqn.primitive.name
        for place, number in enumerate(op.ins):
            if number is None:
                continue
            i, fresh = updated.get(number, (number, 0))
            if place == 0 and name in primitives.PUTS:
                update = op.eqn.invars[primitives.PUTS[name]]
                updated[op.outs[0]] = i, fresh + primitives.num_bytes(update)
                continue
            # Results of this program are on chip, and so are arrays that were read
            # before.
            if place == 0 and name in primitives.PICKS:
                parts[i] += max(sizes[op.outs[0]] - fresh, 0)
            else:
                whole[i] = max(whole[i], sizes[i] - fresh)
    return sum(max(whole[i], min(parts[i], sizes[i])) for i in program.inputs)


def _written(program: _Program, ops: list[_Op]) -> int:
    """Bytes of the program's results that operations write."""
    in_place, total = set[int | None](program.inputs), 0
    for op in ops:
        place = primitives.PUTS.get(op.eqn.primitive.name)
        if place is not None and op.ins[0] in in_place:
            total += primitives.num_bytes(op.eqn.invars[place])
            in_place.update(op.outs)
        else:
            total += _total(program.sizes, set(op.outs) & set(program.outputs))
    return total


def _within(op: _Op, sizes: list[int]) -> int:
    """Bytes that the bodies of an operation need beside its operands and results."""
    eqn, params = op.eqn, op.eqn.params
    name, bodies = eqn.primitive.name, _inner(op.eqn)
    if not bodies:
        bodies = loops.call_bodies(eqn)  # several bodies of one call: the largest
    if not bodies or name == loops.KERNEL:
        return 0
    peak = max(peak_bytes(body) for body in bodies)
    if name == "scan":
        return peak - _total(sizes, op.ins[: _held(eqn)])
    if name == "while":
        return max(peak - _total(sizes, op.ins[params["cond_nconsts"] :]), 0)
    own = _total(sizes, op.ins) + _total(sizes, op.outs)
    return max((loops.shards(eqn) if name == "shard_map" else 1) * peak - own, 0)


def _held(eqn: core.JaxprEqn) -> int:
    """Constants and carry of a scan; what it slices has one more axis outside.

    The parameters that count them are not the same in all versions of JAX.
    """
    body = getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"])
    pairs = zip(eqn.invars, body.invars, strict=True)
    return sum(_rank(outer) == _rank(inner) for outer, inner in pairs)


def _rank(var: Any) -> int:
    return len(var.aval.shape)


def _total(sizes: list[int], arrays: Iterable[int | None]) -> int:
    return sum(sizes[i] for i in arrays if i is not None)
