"""Rows are where XLA reads them, and are in memory once."""

import threading
import time
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import mesh
from ecogen_jax.data import rows


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_picked_rows_are_used_where_they_lie(dtype):
    array = np.arange(12 * 32 * 16, dtype=np.int64).reshape(12, 32, 16).astype(dtype)
    numbers = np.array([7, 0, 7, 11, 3, 2])
    picked = rows.rows(array, numbers)
    np.testing.assert_array_equal(picked, array[numbers])
    placed = mesh.place(picked, num_devices=2)
    np.testing.assert_array_equal(placed, array[numbers])
    starts = [each.data.unsafe_buffer_pointer() for each in placed.addressable_shards]
    half = picked.nbytes // 2
    assert starts == [picked.ctypes.data, picked.ctypes.data + half]


def test_large_rows_wait_until_those_before_are_gone(monkeypatch):
    monkeypatch.setattr(rows, "LARGE", 1000)
    monkeypatch.setattr(rows, "PATIENCE_S", 60.0)
    array, numbers = np.ones((2, 1000), np.uint8), np.array([0, 1])
    held = [rows.rows(array, numbers)]
    memory = weakref.ref(held[0].base)
    late = threading.Timer(0.1, held.clear)  # as JAX lets go of them: later
    late.start()
    rows.rows(array, numbers)
    assert memory() is None


def test_rows_that_a_program_has_read_are_gone_soon(monkeypatch):
    monkeypatch.setattr(rows, "LARGE", 1000)
    monkeypatch.setattr(rows, "PATIENCE_S", 60.0)
    array, numbers = np.ones((2, 1000), np.uint8), np.array([0, 1])
    picked = rows.rows(array, numbers)
    memory = weakref.ref(picked.base)
    placed = mesh.place(picked, num_devices=2)
    assert jax.device_get(jax.jit(jnp.sum)(placed)) == 2000
    del picked, placed
    started = time.monotonic()
    rows.rows(array, numbers)
    assert memory() is None
    assert time.monotonic() - started < 30


def test_large_rows_that_are_kept_are_waited_for_once(monkeypatch):
    monkeypatch.setattr(rows, "LARGE", 1000)
    monkeypatch.setattr(rows, "PATIENCE_S", 0.2)
    array, numbers = np.ones((2, 1000), np.uint8), np.array([0, 1])
    kept = rows.rows(array, numbers)
    started = time.monotonic()
    rows.rows(array, numbers)  # gone at once, and no reason to wait
    assert 0.2 <= time.monotonic() - started < 30
    monkeypatch.setattr(rows, "PATIENCE_S", 60.0)
    rows.rows(array, numbers)
    assert time.monotonic() - started < 30
    assert kept.sum() == 2000


def test_rows_may_be_none_or_scalars():
    assert rows.rows(np.ones((3, 2), np.float32), np.zeros(0, int)).shape == (0, 2)
    np.testing.assert_array_equal(rows.rows(np.arange(5), np.array([4, 1])), [4, 1])
