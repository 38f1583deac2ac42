"""Packed arrays: fewer of them, and the same bits when they are unpacked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import packing

CLIENTS = 3
RNG = np.random.default_rng(0)
TREE = {
    "images": RNG.integers(0, 256, (CLIENTS, 4, 2, 1), np.uint8),
    "labels": RNG.integers(-5, 5, (CLIENTS, 6)).astype(np.int32),
    "number": np.arange(CLIENTS, dtype=np.int32),
    "share": np.array([0.5, np.nan, -np.inf], np.float32),
    "half": jnp.arange(CLIENTS, dtype=jnp.bfloat16).__array__(),
    "nothing": (),
}


def assert_same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_there_is_one_array_for_all_numbers_of_a_size():
    found = packing.packed(TREE)
    shapes = {bits: array.shape for bits, array in found.arrays.items()}
    assert shapes == {
        "uint8": (CLIENTS, 8),
        "uint32": (CLIENTS, 6 + 1 + 1),
        "uint16": (CLIENTS, 1),
    }


def test_arrays_of_the_host_stay_there_and_a_single_one_is_not_copied():
    found = packing.packed(TREE)
    assert all(isinstance(array, np.ndarray) for array in found.arrays.values())
    assert np.shares_memory(found.arrays["uint8"], TREE["images"])
    assert_same_bits(packing.unpacked(found), TREE)


@pytest.mark.parametrize("pack_outside", [True, False])
def test_a_program_unpacks_what_it_gets_and_packs_what_it_gives(pack_outside):
    if pack_outside:
        found = jax.jit(packing.unpacked)(packing.packed(TREE))
    else:
        given = jax.jit(packing.packed)(jax.tree.map(jnp.asarray, TREE))
        found = packing.unpacked(jax.device_get(given))
    assert_same_bits(found, TREE)


def test_what_is_not_packed_is_left_as_it_is():
    assert packing.unpacked(TREE) is TREE


def test_numbers_of_eight_bytes_are_refused():
    with pytest.raises(KeyError, match="8"):
        packing.packed({"wide": np.zeros((CLIENTS, 2), np.float64)})
