import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from ecogen_jax.run import clock as clock_lib
from ecogen_jax.run.clock import Clock


@pytest.fixture
def ticks(monkeypatch):
    """Sets what the clock reads, second by second: a busy machine sleeps too long."""

    def set_to(*seconds):
        told = iter(seconds)
        read = SimpleNamespace(perf_counter=lambda: next(told))
        monkeypatch.setattr(clock_lib, "time", read)

    return set_to


def test_seconds_go_to_the_name(ticks):
    ticks(10.0, 12.0, 15.0, 16.0)
    clock = Clock()
    with clock("train"):
        pass
    with clock("evaluate"):
        pass
    assert clock.state() == {"compile": 0.0, "train": 2.0, "evaluate": 1.0}


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


def test_a_failing_block_still_counts(ticks):
    ticks(10.0, 12.0)
    clock = Clock()

    def fail():
        with clock("train"):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert clock.train == 2.0


def test_state_goes_on_where_it_stopped(ticks):
    ticks(10.0, 12.0)
    clock = Clock(**Clock(compile=3.0, train=5.0).state())
    with clock("train"):
        pass
    assert clock.state() == {"compile": 3.0, "train": 7.0, "evaluate": 0.0}


def test_unknown_name_says_what_is_allowed():
    with pytest.raises(ValueError, match=r"'traim'.*train or evaluate"):
        Clock()("traim").__enter__()
