"""The cost of a program, independent of hardware: plain numbers, without JAX."""

from typing import NamedTuple

Parts = dict[tuple[str, str], float]
"""FLOPs by (class, dtype): one of `CLASSES`, and a name of `primitives.dtype`."""

CLASSES = ("matmul", "conv", "elementwise", "reduction")


class Cost(NamedTuple):
    """What one call of a program costs, over all its shards.

    Attributes:
        flops: operations in total, with the dearest branch of each ``cond`` and the
            stated bound of each ``while``: an upper bound where a program has those,
            exact where it has none.
        flops_low: the same with the cheapest branches and no trip of such a
            ``while``.
        by_class_and_dtype: parts of ``flops``, keyed by (class, dtype).
        fewest: the fewest operations of each class and dtype in any branch, and no
            trip of such a ``while``; their sum is at most ``flops_low``.
        most: the most of each in any branch; their sum is at least ``flops``.
        bytes: operands read and results written by every operation on its own, in B:
            an upper bound, since a compiler fuses operations and keeps data on chip.
        bytes_fused: bytes after perfect fusion, in B; see `memory.fused_bytes`. Like
            ``bytes`` with the dearest branches and the stated bounds.
        bytes_low: the same with the cheapest branches and no trip of such a ``while``.
        peak_bytes: most memory that is alive at once, in B: an upper bound; see
            `memory.peak_bytes`.
        wire_bytes: what collectives send between shards, in B.
    """

    flops: float
    flops_low: float
    by_class_and_dtype: Parts
    fewest: Parts
    most: Parts
    bytes: float
    bytes_fused: float
    bytes_low: float
    peak_bytes: float
    wire_bytes: float

    @property
    def by_class(self) -> dict[str, float]:
        """FLOPs of ``matmul``, ``conv``, ``elementwise`` and ``reduction``."""
        parts = self.by_class_and_dtype
        return {
            kind: float(sum(parts[key] for key in parts if key[0] == kind))
            for kind in CLASSES
        }

    @property
    def by_dtype(self) -> dict[str, float]:
        """FLOPs by the dtype that is computed in."""
        total: dict[str, float] = {}
        for (_, dtype), flops in self.by_class_and_dtype.items():
            total[dtype] = total.get(dtype, 0.0) + flops
        return total
