import time

import jax
import jax.numpy as jnp
import pytest

from ecogen_jax.run.clock import Clock


def test_seconds_go_to_the_name():
    clock = Clock()
    with clock("train"):
        time.sleep(0.02)
    with clock("evaluate"):
        time.sleep(0.01)
    assert 0.02 <= clock.train < 1
    assert 0.01 <= clock.evaluate < clock.train
    assert clock.compile == 0


def test_tracing_and_compiling_count_as_compile():
    clock = Clock()
    factor = time.time()  # a constant that no compile cache has seen

    @jax.jit
    def scale(x):
        return jnp.tanh(x) * factor

    with clock("train"):
        scale(jnp.ones(3)).block_until_ready()
    first = clock.compile
    assert first > 0
    with clock("train"):
        scale(jnp.ones(3)).block_until_ready()
    assert clock.compile == first


def test_a_failing_block_still_counts():
    clock = Clock()

    def fail():
        with clock("train"):
            time.sleep(0.01)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert clock.train >= 0.01


def test_state_goes_on_where_it_stopped():
    clock = Clock(**Clock(compile=3.0, train=5.0).state())
    with clock("train"):
        time.sleep(0.01)
    assert clock.state().keys() == {"compile", "train", "evaluate"}
    assert clock.compile == 3.0
    assert clock.train >= 5.01


def test_unknown_name_says_what_is_allowed():
    with pytest.raises(ValueError, match=r"'traim'.*train or evaluate"):
        Clock()("traim").__enter__()
