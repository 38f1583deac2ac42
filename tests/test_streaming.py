"""What devices keep is on the host, and a round sees the rows of its devices alone."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from ecogen_jax import keys
from ecogen_jax.relay.federated import streaming
from tests.toy_federation import ACTIVE, DEVICES, KEY, distance, toy

KEEPING = {
    "alone": {},
    "feddistill": {},
    "scaffold": {},
    "fedgen": {"norm": True, "statistics": "own"},
    "fedavg": {"compression": "int8"},
    "relay_rounds": {},
}
"""Methods and settings with something for each device."""


@pytest.mark.parametrize("name", KEEPING)
def test_rows_of_devices_that_rest_stay_and_those_of_others_change(name):
    before, after = (
        jax.tree.leaves(streaming.rows_of(state))
        for state in toy(name, **KEEPING[name]).play(1)[0]
    )
    moved = np.any(
        [
            np.reshape(a != b, (DEVICES, -1)).any(axis=1)
            for a, b in zip(before, after, strict=True)
        ],
        axis=0,
    )
    assert np.flatnonzero(moved).tolist() == list(ACTIVE)


@pytest.mark.parametrize("name", KEEPING)
def test_a_round_is_given_the_rows_of_its_devices_and_gives_them_back(name):
    played = toy(name, **KEEPING[name])
    state = jax.tree.map(np.array, played.first)
    cohort = streaming.handed_out(state, played.stage.together.feed(0))
    core = jax.device_put(streaming.core(state))
    after, _, said = played.round(core, cohort, keys.moment(keys.data(KEY), 1, 0))
    rows = jax.tree.leaves((cohort.kept, said.kept))
    assert rows
    assert all(leaf.shape[0] == len(ACTIVE) for leaf in rows)
    assert not jax.tree.leaves(streaming.rows_of(after))
    found = streaming.put_back(state, after, np.array(ACTIVE), said)
    rows = streaming.rows_of(found)
    taken = jax.tree.map(lambda leaf: leaf[list(ACTIVE)], rows)
    assert distance(taken, jax.device_get(said.kept)) == 0.0


def test_all_devices_start_with_the_same():
    first = toy("scaffold").first
    own = streaming.everybody(replace(first, own=np.float32([1, 2, 3])), 5).own
    np.testing.assert_array_equal(own, np.float32([[1, 2, 3]] * 5))


def test_arrays_of_a_checkpoint_are_taken_over_and_only_read_ones_copied():
    own = {"free": np.zeros((5, 2)), "read": np.zeros((5, 2))}
    own["read"].flags.writeable = False
    state = replace(toy("scaffold").first, own=own)
    kept, *_ = streaming.kept_on_host(state)
    assert kept["free"] is own["free"]
    kept["read"][:] = 1
    assert not own["read"].any()
