"""Streams are independent, stable and usable under jit and vmap."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import keys


def data(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_root_is_the_typed_key_of_the_seed():
    assert jnp.issubdtype(keys.root(3).dtype, jax.dtypes.prng_key)
    assert data(keys.root(3)) == data(jax.random.key(3))


def test_names_seeds_and_indices_give_different_streams():
    draws = [
        data(keys.stream(keys.root(seed), name, *indices))
        for seed, name, indices in itertools.product(
            (0, 1), ("batches", "init"), ((), (0,), (1,), (0, 1), (1, 0))
        )
    ]
    assert len(set(draws)) == len(draws)


def test_a_stream_does_not_depend_on_the_streams_drawn_before():
    alone = data(keys.stream(keys.root(0), "generator", 5))
    key = keys.root(0)
    for name in ("added", "later"):
        jax.random.normal(keys.stream(key, name), (2,))
    assert data(keys.stream(key, "generator", 5)) == alone


def test_values_are_the_same_in_every_process():
    # Pinned: a change here would silently change the numbers of every published run.
    assert data(keys.stream(keys.root(0), "a")) == (208555866, 2927674385)
    assert data(keys.stream(keys.root(0), "a", 7)) == (2832221555, 3119276247)


def test_traced_indices_give_the_same_keys_as_plain_ones():
    key = keys.root(1)
    plain = [data(keys.stream(key, "client", 4, i)) for i in range(3)]
    mapped = jax.jit(jax.vmap(lambda i: keys.stream(key, "client", 4, i)))
    assert [data(k) for k in mapped(jnp.arange(3))] == plain


def test_a_moment_holds_the_key_the_cycle_and_the_round():
    sent = keys.moment(keys.data(keys.root(2**32 - 1)), 3, 41)
    assert isinstance(sent, np.ndarray)
    key, cycle, number = jax.jit(keys.of_moment)(sent)
    assert data(key) == data(keys.root(2**32 - 1))
    assert (cycle, number) == (3, 41)
    assert cycle.dtype == number.dtype == jnp.int32


def test_a_raw_array_is_not_taken_for_a_key():
    with pytest.raises(Exception, match="Key"):
        keys.stream(jnp.zeros(2, jnp.uint32), "a")
