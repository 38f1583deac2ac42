"""The cost of one primitive operation: FLOPs, dtype, bytes, and bytes on the wire.

Rules, in FLOPs:

* ``dot_general``: 2 x output size x contracted size (2 M N K per batch element);
  ``ragged_dot_general`` likewise, as each row, or each contracted one, is of one group.
* ``conv_general_dilated``: see `_conv_flops`.
* elementwise: one per output element, whatever the function and the dtype.
* reductions, cumulative sums and all-reduces: one per input element of each shard;
  pooling: one per window and element of the window; scatters: one per update.
* data movement, dtype casts, key handling: zero.

Left out: the cost of sorting and of dense linear algebra (``sort``, ``fft``,
``cholesky``, ...), of products with scales (``scaled_dot``), of ``pbroadcast``, and of
what leaves JAX (``ffi_call``, ``pure_callback``), which fall back to one per output
element. A product of complex numbers counts as one of real numbers, a quarter of its
work.

Bytes on the wire are those of the ring algorithms, the minimum of a bandwidth-optimal
network (Patarasuk and Yuan 2009, J. Parallel Distrib. Comput.
69). A shard that holds b bytes, in a group of n:

* all-reduce (``psum``, ``pmax``, ``pmin``): 2 (n - 1) / n x b
* ``all_gather``: (n - 1) x b
* ``reduce_scatter``, ``all_to_all``: (n - 1) / n x b
* ``ppermute``: b for each pair that is not a shard with itself
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.extend import core


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


ALL_REDUCES = _names("psum psum_invariant pmax pmin")
_GATHERS = _names("all_gather all_gather_invariant")
_EXCHANGES = _names("reduce_scatter all_to_all")
_REDUCTIONS = ALL_REDUCES | _names(
    "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor "
    "reduce argmax argmin cumsum cumprod cummax cummin cumlogsumexp reduce_scatter"
)
_WINDOWED = _names(
    "reduce_window reduce_window_sum reduce_window_max reduce_window_min "
    "select_and_scatter_add select_and_gather_add"
)
_SCATTERS = _names("scatter-add scatter-sub scatter-mul scatter-min scatter-max")
_MOVEMENT = _names(
    "broadcast_in_dim reshape transpose squeeze slice dynamic_slice gather scatter "
    "dynamic_update_slice concatenate stack tile pad rev split unstack iota copy empty "
    "convert_element_type bitcast_convert_type reduce_precision stop_gradient "
    "optimization_barrier device_put reshard sharding_constraint axis_index pvary name "
    "all_gather all_gather_invariant all_to_all ppermute "
    "random_seed random_wrap random_unwrap random_split random_fold_in "
    "get swap program_id num_programs"  # of a Pallas kernel
)
# Their jaxpr, if any, is the scalar operation that they apply.
OWN_RULE = _REDUCTIONS | _WINDOWED | _SCATTERS | _MOVEMENT
# Operations on the type or name only, without memory access.
ALIASES = _names("pvary name")
# Operations that read a part of their first operand, as large as their result.
PICKS = _names("slice dynamic_slice gather")
# Operations that write a part of their first operand, and the operand that they write.
PUTS = {"dynamic_update_slice": 1, "scatter": 2} | dict.fromkeys(_SCATTERS, 2)


def flops(eqn: core.JaxprEqn) -> tuple[str, int]:
    """Class and FLOPs of one primitive operation.

    Args:
        eqn: an equation without a body, or one of `OWN_RULE`.

    Returns:
        One of `counts.CLASSES`, and the number of operations.
    """
    name = eqn.primitive.name
    if name == "dot_general":
        return "matmul", _dot_flops(eqn)
    if name == "ragged_dot_general":
        return "matmul", _ragged_dot_flops(eqn)
    if name == "conv_general_dilated":
        return "conv", _conv_flops(eqn)
    if name in _MOVEMENT:
        return "elementwise", 0
    if name in _REDUCTIONS:
        return "reduction", sum(_size(var) for var in eqn.invars)
    if name in _SCATTERS:
        _, _, updates = eqn.invars
        return "reduction", _size(updates)
    if name in _WINDOWED:
        # Pooling has one window per output, its gradient one per cotangent.
        windows = min(_size(eqn.outvars[0]), _size(eqn.invars[0]))
        return "reduction", windows * math.prod(eqn.params["window_dimensions"])
    return "elementwise", sum(_size(var) for var in eqn.outvars)


def dtype(eqn: core.JaxprEqn) -> str:
    """Name of the dtype that an operation computes in.

    Args:
        eqn: an equation with at least one result.

    Returns:
        The wider operand's dtype for products, which may accumulate in a wider one,
        with ``_high`` or ``_highest`` behind ``float32`` if they ask for more than the
        default precision (`jax.lax.Precision`; algorithm presets are not read); the
        operand's for comparisons and ``argmax``; else the result's.
    """
    name, operands = eqn.primitive.name, [_dtype(var) for var in eqn.invars]
    result = _dtype(eqn.outvars[0])
    if name == "ragged_dot_general":
        operands = operands[:2]  # the third operand is the sizes of the groups
    if name in ("dot_general", "ragged_dot_general", "conv_general_dilated"):
        widest: str = max(operands, key=lambda one: one.itemsize).name
        return widest + _precision(eqn) if widest == "float32" else widest
    if operands and (result.name == "bool" or name in ("argmax", "argmin")):
        return operands[0].name
    return result.name


def _precision(eqn: core.JaxprEqn) -> str:
    """What a product asks for beyond the default, as the end of a dtype's name."""
    asked = eqn.params["precision"]
    asked = asked if isinstance(asked, tuple) else (asked,)
    if jax.lax.Precision.HIGHEST in asked:
        return "_highest"
    return "_high" if jax.lax.Precision.HIGH in asked else ""


def unfused_bytes(eqn: core.JaxprEqn) -> int:
    """Bytes of operands and results; literals are part of the instruction."""
    if eqn.primitive.name in ALIASES:
        return 0
    operands: list[Any] = [v for v in eqn.invars if not isinstance(v, core.Literal)]
    return sum(num_bytes(var) for var in [*operands, *eqn.outvars])


def wire_bytes(eqn: core.JaxprEqn, axis_sizes: Mapping[str, int]) -> float:
    """Bytes that one shard sends to others in one collective.

    Args:
        eqn: any equation.
        axis_sizes: shards along each named axis that surrounds the equation.

    Returns:
        Bytes by the rules above; 0 for what is no collective.
    """
    name, params = eqn.primitive.name, eqn.params
    if name not in ALL_REDUCES | _GATHERS | _EXCHANGES | {"ppermute"}:
        return 0.0
    # An axis of `vmap` is reduced locally, before anything is sent.
    held = sum(map(num_bytes, eqn.outvars if name in ALL_REDUCES else eqn.invars))
    group = _group_size(params, axis_sizes)
    if name == "ppermute":
        return held * sum(a != b for a, b in params["perm"]) / group
    if name in _GATHERS:
        return float((group - 1) * held)
    return (2 if name in ALL_REDUCES else 1) * (group - 1) / group * held


def num_bytes(var: Any) -> int:
    """Bytes of an array; 0 for what is none, such as a token or a semaphore."""
    dtype = getattr(var.aval, "dtype", None)
    return _size(var) * getattr(dtype, "itemsize", 0)


def _group_size(params: Mapping[str, Any], axis_sizes: Mapping[str, int]) -> int:
    groups = params.get("axis_index_groups")
    if groups:
        return len(groups[0])
    axes = params["axes"] if "axes" in params else params["axis_name"]
    every = axes if isinstance(axes, tuple | list) else (axes,)
    # Integers are axes of the array itself, which `vmap` has named.
    return math.prod(axis_sizes[axis] for axis in every if not isinstance(axis, int))


def _dot_flops(eqn: core.JaxprEqn) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    shape = _shape(eqn.invars[0])
    return 2 * _size(eqn.outvars[0]) * math.prod(shape[axis] for axis in contracted)


def _ragged_dot_flops(eqn: core.JaxprEqn) -> int:
    """As of a dense product; where the ragged axis is contracted, shared by groups."""
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    (contracted, _), _ = numbers.dot_dimension_numbers
    rows, _, groups = map(_shape, eqn.invars[:3])
    total = 2 * _size(eqn.outvars[0]) * math.prod(rows[axis] for axis in contracted)
    (ragged,) = numbers.lhs_ragged_dimensions
    return total // groups[-1] if ragged in contracted else total


def _conv_flops(eqn: core.JaxprEqn) -> int:
    """Multiply-adds of a convolution, times 2.

    Along each spatial axis, taps x min(output positions, input positions): every
    output meets every tap once, border padding included, and no input position meets
    a tap twice. So a strided or SAME convolution has its full textbook count, the
    holes of a dilated input are no work, and each of the two gradients of a
    convolution costs what the convolution costs. XLA leaves border padding out:
    it reports 4 % less for a 3 x 3 SAME convolution of 32 x 32 images.
    """
    lhs, rhs, out = map(_shape, [*eqn.invars, *eqn.outvars])
    layout = eqn.params["dimension_numbers"]
    pairs = math.prod(
        rhs[tap] * min(out[after], lhs[before])
        for before, tap, after in zip(
            layout.lhs_spec[2:], layout.rhs_spec[2:], layout.out_spec[2:], strict=True
        )
    )
    batch, channels = (out[axis] for axis in layout.out_spec[:2])
    return 2 * batch * channels * rhs[layout.rhs_spec[1]] * pairs


def _dtype(var: Any) -> Any:
    return var.aval.dtype


def _shape(var: Any) -> tuple[int, ...]:
    return var.aval.shape


def _size(var: Any) -> int:
    return math.prod(_shape(var))
