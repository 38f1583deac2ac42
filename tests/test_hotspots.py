"""The profile of a round names what its program does, and how often."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import hotspots

STEPS, ROUNDS = 5, 3


class Products:
    """Rounds of matrix products, one after the other."""

    def __init__(self):
        def step(x, _):
            return jnp.tanh(x @ x), None

        self._round = jax.jit(lambda x: jax.lax.scan(step, x, None, length=STEPS)[0])
        self._x = jnp.full((64, 64), 0.01)

    def one(self):
        self._round(self._x).block_until_ready()

    def program(self):
        return self._round.lower(self._x).compile().as_text()


def test_operations_of_a_round_are_timed_and_counted():
    rounds = Products()
    rounds.one()
    found = hotspots.profiled(rounds, ROUNDS)
    (product,) = found[found.source.str.contains("dot_general")].itertuples()
    assert product.calls == STEPS
    assert product.result == "f32[64,64]"
    assert found.ms.is_monotonic_decreasing
    assert (found.ms > 0).all()


def test_operations_are_read_from_a_program():
    program = """
      %copy.1 = f32[2,3]{1,0} copy(%x), metadata={op_name="jit(f)/while/body/add"}
      ROOT %dot.2 = (s32[], f32[4]{0}) tuple(%a, %b)
      not an operation
    """
    assert hotspots.operations(program) == {
        "copy.1": ("f32[2,3]", "jit(f)/while/body/add"),
        "dot.2": ("several", ""),
    }


def test_something_unknown_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["hotspots", "S9"])
    with pytest.raises(SystemExit):
        hotspots.main()
    assert "invalid choice: 'S9'" in capsys.readouterr().err
