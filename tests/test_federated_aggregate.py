"""Aggregators against closed forms, NumPy and clients that lie or are absent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.relay.federated import aggregate, schedule
from ecogen_jax.relay.federated.aggregate import AGGREGATORS
from ecogen_jax.relay.federated.base import Arrived
from ecogen_jax.relay.federated.heard import Heard, added, nobody

CLIENTS = 10


def draw(seed=0, clients=CLIENTS):
    rng = np.random.default_rng(seed)
    return {
        "kernel": jnp.asarray(rng.normal(size=(clients, 3, 4)), jnp.float32),
        "bias": jnp.asarray(rng.normal(size=(clients,)), jnp.float32),
    }


def column(*values):
    return {"x": jnp.asarray(values, jnp.float32)}


def reference(name, values, weights):
    """What NumPy makes of the clients that take part."""
    values, weights = values[weights > 0], weights[weights > 0]
    if name == "mean":
        return np.average(values, axis=0, weights=weights)
    if name == "median":
        return np.median(values, axis=0)
    cut = int(np.floor(0.2 * len(values) + 1e-9))
    return np.sort(values, axis=0)[cut : len(values) - cut].mean(axis=0)


@pytest.mark.parametrize(
    ("name", "expected"), [("mean", 33.0), ("median", 3.0), ("trimmed_mean", 4.0)]
)
def test_values_by_hand(name, expected):
    # The trimmed mean of five is that of 2, 3 and 7.
    updates = column(7.0, 2.0, 150.0, 3.0, 3.0)
    if name == "trimmed_mean":
        updates = column(7.0, 2.0, 150.0, 3.0, -50.0)
    found = AGGREGATORS[name](updates, jnp.ones(5))
    assert found["x"] == pytest.approx(expected)


def test_the_mean_is_weighted_and_the_others_are_not():
    updates, weights = column(1.0, 5.0, 9.0), jnp.asarray([6.0, 1.0, 1.0])
    found = {name: fn(updates, weights)["x"] for name, fn in AGGREGATORS.items()}
    assert found == {"mean": 2.5, "median": 5.0, "trimmed_mean": 5.0}


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.parametrize("present", [1, 2, 4, 5, 7, 9, 10])
def test_only_those_who_take_part_count(name, present):
    rng = np.random.default_rng(present)
    weights = np.zeros(CLIENTS, np.float32)
    chosen = rng.choice(CLIENTS, present, replace=False)
    weights[chosen] = rng.integers(1, 500, present)
    healthy = draw()
    bad = rng.choice([np.nan, np.inf, -np.inf, 1e30], CLIENTS).astype(np.float32)

    def spoil(leaf):
        over = weights.reshape(-1, *(1,) * (leaf.ndim - 1))
        return jnp.where(over > 0, leaf, bad.reshape(over.shape))

    found = jax.jit(AGGREGATORS[name])(jax.tree.map(spoil, healthy), weights)
    for key, leaf in healthy.items():
        expected = reference(name, np.asarray(leaf, np.float64), weights)
        assert found[key].shape == leaf.shape[1:]
        np.testing.assert_allclose(found[key], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_nobody_changes_nothing(name):
    updates = jax.tree.map(lambda leaf: leaf.at[2].set(jnp.nan), draw())
    found = AGGREGATORS[name](updates, jnp.zeros(CLIENTS))
    assert all(np.all(np.asarray(leaf) == 0.0) for leaf in found.values())


@pytest.mark.parametrize("name", ["median", "trimmed_mean"])
@pytest.mark.parametrize("lie", [1e6, -1e6, 0.3])
def test_two_liars_of_ten_stay_within_the_bounds_of_the_honest(name, lie):
    updates = jax.tree.map(lambda leaf: leaf.at[jnp.asarray([1, 6])].set(lie), draw())
    found = AGGREGATORS[name](updates, jnp.ones(CLIENTS))
    for key, leaf in draw().items():
        honest = np.delete(np.asarray(leaf), [1, 6], axis=0)
        # Whatever two clients say, the median of ten is between ranks of the honest.
        low, high = np.sort(honest, axis=0)[[2, 5] if name == "median" else [0, 7]]
        assert np.all((found[key] >= low - 1e-6) & (found[key] <= high + 1e-6))


def test_the_same_liars_move_the_mean():
    updates = jax.tree.map(lambda leaf: leaf.at[jnp.asarray([1, 6])].set(1e6), draw())
    assert aggregate.mean(updates, jnp.ones(CLIENTS))["bias"] > 1e5


@pytest.mark.parametrize("name", AGGREGATORS)
def test_who_takes_part_is_traced_and_compiles_once(name):
    traces = []

    @jax.jit
    def merged(updates, weights):
        traces.append(name)
        return AGGREGATORS[name](updates, weights)

    few = merged(draw(), jnp.ones(CLIENTS).at[3:].set(0.0))
    many = merged(draw(), jnp.ones(CLIENTS))
    assert len(traces) == 1
    assert not np.allclose(few["kernel"], many["kernel"])


def test_metrics_of_a_refused_device_count_unless_it_diverged():
    def heard(verdict, loss):
        metrics = {"loss": jnp.full(2, loss)}
        return Heard(jnp.int32(verdict), ((), ()), metrics)

    one = Arrived(jnp.int32(0), jnp.int32(0), (), (), jnp.float32(1.0))
    sums = nobody(heard(schedule.OK, 0.0), one, 0)
    for verdict, loss in (
        (schedule.OK, 1.0),
        (schedule.DROP, 3.0),
        (schedule.NAN, jnp.nan),
    ):
        sums = added(sums, (heard(verdict, loss), ()))
    assert float(sums.counted) == 2
    assert float(sums.metrics["loss"]) == 4.0
