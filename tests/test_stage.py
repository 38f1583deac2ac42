"""A round is a fixed chunk of steps, compiled once, wherever its parties are mapped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import keys, mesh
from ecogen_jax.energy import meter
from ecogen_jax.relay.stage import (
    Mapping,
    compile_round,
    no_messages,
    party_keys,
    repeat,
    round_flops,
)
from tests import toy_cycle

KEY = jax.random.key(2)
VMAP = Mapping("vmap", 1)


@pytest.fixture(scope="module")
def local():
    """Fine-tuning of four devices on private images and replay."""
    _, cycle = toy_cycle.stages()
    return cycle[2]


@pytest.fixture(scope="module")
def material(local):
    """The devices' first state and their images, on the host."""
    started = local.begin(toy_cycle.untrained(), KEY)
    return jax.tree.map(np.asarray, started)


def in_turn(step, state, inputs, key, steps):
    """The steps of a round without a scan."""
    each = []
    for one in jax.random.split(key, steps):
        state, metrics = step(state, inputs, one)
        each.append(metrics["drawn"])
    return state, each


def draw(state, inputs, key):
    drawn = jax.random.uniform(key)
    return state + inputs * drawn, {"drawn": drawn}


def test_a_round_is_its_steps_in_turn_with_the_metrics_of_each():
    start, inputs = jnp.float32(1), jnp.float32(10)
    state, metrics = repeat(draw, 4)(start, inputs, KEY)
    expected, each = in_turn(draw, start, inputs, KEY, 4)
    np.testing.assert_allclose(state, expected, rtol=1e-6)
    np.testing.assert_allclose(metrics["drawn"], each, rtol=1e-6)
    assert len(set(np.asarray(each).tolist())) == 4


@pytest.mark.parametrize("mapping", [VMAP, Mapping("shard_map", 2)])
def test_a_round_is_traced_once_and_its_state_donated(local, material, mapping):
    traces = 0

    def counted(*arguments):
        nonlocal traces
        traces += 1
        return local.one(*arguments)

    def placed(tree):
        return mesh.place(tree, num_devices=mapping.num_devices)

    one_round = compile_round(local._replace(one=counted), mapping)
    state, inputs = map(placed, material)
    for number in range(3):
        before = state
        state, _ = one_round(before, inputs, keys.moment(keys.data(KEY), 1, number))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(inputs))
    assert traces == 1


def test_a_round_draws_from_the_keys_of_its_cycle_and_number(local, material):
    def drawn(state, inputs, key):
        del inputs
        return state, {"drawn": jax.random.key_data(key)}

    one_round = compile_round(local._replace(one=drawn), VMAP)
    moment = keys.moment(keys.data(KEY), 2, 5)
    _, metrics = one_round(*jax.tree.map(jnp.asarray, material), moment)
    expected = jax.random.key_data(party_keys(local, KEY, 2, 5))
    assert np.array_equal(metrics["drawn"], expected)


def results(stage, material, mapping):
    state, inputs = jax.tree.map(jnp.asarray, material)
    one_round = compile_round(stage, mapping)
    return jax.tree.map(
        np.asarray, one_round(state, inputs, keys.moment(keys.data(KEY), 1, 0))
    )


@pytest.fixture(scope="module")
def reference(local, material):
    return results(local, material, VMAP)


@pytest.mark.parametrize(
    "mapping",
    [
        Mapping("loop", 1),
        *(Mapping("shard_map", devices) for devices in (1, 2, 4)),
        Mapping("pmap", 2),
        Mapping("auto", 2),
    ],
    ids=lambda mapping: "-".join(map(str, mapping)),
)
def test_every_mapping_gives_the_same_round(local, material, reference, mapping):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
        results(local, material, mapping),
        reference,
    )


def test_parties_with_keys_of_their_own_go_their_own_ways(reference):
    state, metrics = reference
    for party in range(3):
        one, other = state.variables.params["first"][party : party + 2]
        assert not np.array_equal(one, other)
    assert metrics["cross_entropy"].shape == (4, toy_cycle.STEPS)


def test_keys_differ_by_party_round_cycle_and_stage(local):
    pretrain = toy_cycle.stages()[0][0]
    drawn = [
        jax.random.key_data(party_keys(stage, KEY, cycle, number))
        for stage, cycle, number in (
            (local, 1, 0),
            (local, 1, 1),
            (local, 2, 0),
            (pretrain, 1, 0),
        )
    ]
    assert [len(keys) for keys in drawn] == [4, 4, 4, 1]
    rows = np.concatenate(drawn)
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_flops_of_a_round_are_those_of_one_party_times_the_parties(local, material):
    state, inputs = material
    one = jax.tree.map(lambda a: a[0], (state, inputs))
    alone = meter.cost(local.one, *one, KEY).flops
    assert round_flops(local, state, inputs) == 4 * alone > 0
    longer = local._replace(one=repeat(local.one, 3))
    assert round_flops(longer, state, inputs) > 2.9 * 4 * alone


def test_no_messages():
    assert no_messages(toy_cycle.untrained()) == []
