"""Selects rows of host arrays such that they are in memory only once."""

import gc
import math
import time
import weakref

import numpy as np

ALIGNMENT = 64
"""Bytes; where an array has to start for XLA to use it on a CPU without a copy."""

LARGE = 1 << 28
"""Bytes; of an array so large there should be one at a time."""

PATIENCE_S = 0.5
"""How long `rows` waits for the memory of the large rows before."""


def rows(array: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Copies rows of an array to memory that CPU devices use without another copy.

    `mesh.place` makes a second copy of an array that does not start at a multiple of 64
    bytes: a cohort's images would be in memory twice. Do not write to the rows
    afterwards.

    JAX releases a host array some milliseconds after the last program that read it, at
    the next call. If rows are `LARGE`, this function first waits for the release of the
    earlier rows, or both would be in memory. Rows that are still held after
    `PATIENCE_S` are assumed to be kept on purpose, and are not waited for again.

    Args:
      array: `[any, ...]`.
      numbers: int `[...]` of any shape, each from 0 to `any - 1`.

    Returns:
      The rows, in the shape of the numbers.
    """
    shape = (*numbers.shape, *array.shape[1:])
    size = math.prod(shape) * array.itemsize
    if size >= LARGE:
        _wait_for_release()
    memory = np.empty(size + ALIGNMENT, np.uint8)
    if size >= LARGE:
        _large_rows.append(weakref.ref(memory))
    start = -memory.ctypes.data % ALIGNMENT
    taken = memory[start : start + size].view(array.dtype).reshape(shape)
    # Other modes of `take` would fill a buffer first.
    return np.take(array, numbers, axis=0, out=taken, mode="clip")


_large_rows: list[weakref.ref[np.ndarray]] = []


def _wait_for_release() -> None:
    """Waits until JAX has released large rows; not for ever, as they may be kept."""
    until = time.monotonic() + PATIENCE_S
    while _large_rows and time.monotonic() < until:
        gc.collect(0)  # makes JAX release arrays that it no longer reads
        _large_rows[:] = [each for each in _large_rows if each() is not None]
        if _large_rows:
            time.sleep(0.001)
    _large_rows.clear()
