"""Schedules sample without replacement, keep their rates, and are prefix-stable."""

import math

import numpy as np
import pytest

from ecogen_jax.relay.federated import schedule as schedules
from ecogen_jax.relay.federated.schedule import FAULTS, Faults
from tests.toy_federation import config

DEVICES, ACTIVE, ROUNDS = 20, 8, 500
EDGES = np.arange(DEVICES) // 5
SOME = Faults(
    drop=0.1, nan=0.05, stale=0.2, shape=0.02, straggler=0.3, straggler_share=0.25
)


def draw(seed=0, faults=SOME, **changes):
    arguments = {"rounds": ROUNDS, "num_devices": DEVICES, "active": ACTIVE}
    arguments["steps"] = 20
    rng = np.random.default_rng(seed)
    return schedules.schedule(
        rng, **{"edges_of": EDGES, **arguments, **changes}, faults=faults
    )


def is_share(count, trials, rate):
    """Within five standard deviations of the binomial."""
    return abs(count - trials * rate) <= 5 * math.sqrt(trials * rate * (1 - rate))


def test_each_round_samples_devices_without_replacement_in_random_order():
    active = draw().active
    assert (active.shape, active.dtype) == ((ROUNDS, ACTIVE), np.int32)
    assert np.all(np.diff(np.sort(active, axis=1), axis=1) > 0)
    assert len(set(active[:, -1].tolist())) > 1  # who is shown
    assert (active.min(), active.max()) == (0, DEVICES - 1)


def test_all_devices_take_part_alike():
    counts = np.bincount(draw().active.ravel(), minlength=DEVICES)
    assert all(is_share(count, ROUNDS, ACTIVE / DEVICES) for count in counts)


def test_all_are_active_where_there_is_nobody_else():
    active = draw(active=DEVICES, rounds=3).active
    assert np.array_equal(np.sort(active, axis=1), np.tile(np.arange(DEVICES), (3, 1)))


def test_the_edge_is_that_of_the_device():
    edges_of = np.random.default_rng(1).permutation(EDGES)
    found = draw(edges_of=edges_of)
    assert np.array_equal(found.edge, edges_of[found.active])


def test_faults_keep_their_rates():
    fault = draw().fault
    assert fault.dtype == np.int8
    expected = {"ok": 0.63, "drop": 0.1, "nan": 0.05, "stale": 0.2, "shape": 0.02}
    for code, name in enumerate(FAULTS):
        assert is_share(np.sum(fault == code), fault.size, expected[name]), name


@pytest.mark.parametrize("name", FAULTS[1:])
def test_a_certain_fault_is_the_only_one_and_has_its_constant(name):
    fault = draw(faults=Faults(**{name: 1.0}), rounds=5).fault
    assert np.all(fault == getattr(schedules, name.upper()))


def test_no_faults_is_no_faults():
    found = draw(faults=Faults())
    assert np.all(found.fault == schedules.OK)
    assert np.all(found.steps_share == 1.0)
    assert not found.flips.any()


def test_stragglers_keep_their_rate_and_do_their_share_of_steps():
    share = draw().steps_share
    assert share.dtype == np.float32
    assert set(np.unique(share)) == {0.25, 1.0}
    assert is_share(np.sum(share == 0.25), share.size, 0.3)
    # Whether a device is slow says nothing about whether its message is spoilt.
    dropped = draw().fault == schedules.DROP
    assert is_share(np.sum(share[dropped] == 0.25), dropped.sum(), 0.3)


@pytest.mark.parametrize(
    ("steps", "share", "done"), [(1, 0.5, 1), (3, 0.5, 2), (5, 0.3, 2), (20, 0.01, 1)]
)
def test_stragglers_do_whole_steps_and_one_at_least(steps, share, done):
    slow = Faults(straggler=1.0, straggler_share=share)
    found = draw(faults=slow, rounds=1, steps=steps).steps_share
    assert found == pytest.approx(np.full((1, ACTIVE), done / steps), rel=1e-6)


@pytest.mark.parametrize(("flip", "count"), [(0.2, 4), (0.0, 0), (1.0, 20)])
def test_an_exact_share_of_the_devices_flips_labels(flip, count):
    flips = draw(faults=Faults(flip=flip), rounds=1).flips
    assert (flips.shape, flips.dtype, flips.sum()) == ((DEVICES,), bool, count)


def test_who_flips_depends_on_the_seed():
    flips = [draw(seed, Faults(flip=0.2), rounds=1).flips for seed in range(200)]
    assert all(is_share(count, 200, 0.2) for count in np.sum(flips, axis=0))


def test_a_schedule_depends_on_the_seed_alone():
    assert all(map(np.array_equal, draw(3), draw(3)))
    assert not np.array_equal(draw(3).active, draw(4).active)


def test_a_longer_run_begins_with_the_same_rounds():
    faults = SOME._replace(flip=0.2)
    short, long = draw(faults=faults, rounds=7), draw(faults=faults, rounds=40)
    for field in ("active", "edge", "fault", "steps_share"):
        assert np.array_equal(getattr(short, field), getattr(long, field)[:7])
    assert np.array_equal(short.flips, long.flips)


def test_rates_change_neither_who_is_sampled_nor_other_draws():
    plain, faulty = draw(faults=Faults()), draw(faults=SOME)
    assert np.array_equal(plain.active, faulty.active)
    more = draw(faults=SOME._replace(drop=0.3))
    assert np.all(more.fault[faulty.fault == schedules.DROP] == schedules.DROP)
    assert np.array_equal(more.steps_share, faulty.steps_share)


@pytest.mark.parametrize("active", [0, 21])
def test_more_active_devices_than_devices_are_refused(active):
    with pytest.raises(ValueError, match=rf"federated\.active is {active}.* 1 to 20"):
        draw(active=active)


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (Faults(nan=1.5), r"faults\.nan is 1\.5: allowed is 0 to 1"),
        (Faults(flip=-0.1), r"faults\.flip is -0\.1"),
        (Faults(straggler_share=0.0), r"faults\.straggler_share is 0"),
        (Faults(drop=0.6, stale=0.6), r"sum to 1\.2: allowed is at most 1"),
    ],
)
def test_impossible_rates_are_refused(faults, message):
    with pytest.raises(ValueError, match=message):
        draw(faults=faults)


def test_rates_that_add_up_to_one_are_allowed_however_they_are_rounded():
    every = {"drop": 0.2, "nan": 0.4, "stale": 0.3, "shape": 0.1}
    assert sum(every.values()) > 1
    drawn = draw(faults=Faults(**every))
    assert (drawn.fault > 0).all()
    assert config("fedavg", **{f"faults__{kind}": rate for kind, rate in every.items()})
