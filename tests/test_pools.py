"""What arrives is added up one by one, and nobody keeps it all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import mesh
from ecogen_jax.relay.federated import FEDERATED, pools, streaming
from ecogen_jax.relay.federated.aggregate import mean
from ecogen_jax.relay.federated.base import Arrived
from ecogen_jax.relay.federated.compression import compression
from ecogen_jax.relay.federated.engine import federation
from ecogen_jax.relay.stage import Mapping
from tests.test_federated_server import ACTIVE, DEVICES, NET, cohort, task

EDGES = np.array([0, 1, 0, 2, 1, 0], np.int32)
WEIGHTS = np.array([3.0, 1.0, 0.0, 2.0, 0.5, 4.0], np.float32)


def devices():
    """What six devices send; the one of weight 0 sends NaN."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 4, 2)).astype(np.float32)
    values[2] = np.nan
    facts = rng.normal(size=(6, 3)).astype(np.float32)
    every = Arrived(np.arange(6, dtype=np.int32), EDGES, {"w": values}, facts, WEIGHTS)
    return jax.tree.map(jnp.asarray, every)


def pooled(every, count):
    """The pools of two shares of three devices each, added up."""
    shares = []
    for first in (0, 3):
        one = jax.tree.map(lambda leaf: leaf[0], every)
        found = pools.empty(one, count)
        for at in range(first, first + 3):
            one = jax.tree.map(lambda leaf, at=at: leaf[at], every)
            found = pools.added(found, one)
        shares.append(found)
    return mesh.added_up(jax.tree.map(lambda *leaves: jnp.stack(leaves), *shares))


def test_the_mean_of_a_pools_means_is_that_of_the_devices():
    every = devices()
    found = pools.means(pooled(every, 1))
    assert found.weights.tolist() == [10.5]
    for one, other in ((found.updates, every.updates), (found.facts, every.facts)):
        got, wanted = mean(one, found.weights), mean(other, every.weights)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
            got,
            wanted,
        )


def test_every_edge_has_a_pool_and_an_empty_one_weighs_nothing():
    every = devices()
    found = pools.means(pooled(every, 3))
    assert found.edge.tolist() == [0, 1, 2]
    assert found.weights.tolist() == [7.0, 1.5, 2.0]
    assert np.isfinite(found.updates["w"]).all()
    for edge in range(3):
        here = jnp.where(found.edge == edge, found.weights, 0.0)
        wanted = mean(every.updates, jnp.where(edge == EDGES, every.weights, 0.0))
        got = mean(found.updates, here)
        np.testing.assert_allclose(got["w"], wanted["w"], rtol=1e-6, atol=1e-6)


MAPPINGS = [
    ("loop", 1, 0),
    ("scan", 1, 0),
    ("vmap", 1, 0),
    ("vmap", 1, 4),
    ("shard_map", 2, 0),
    ("shard_map", 2, 2),
    ("pmap", 2, 0),
]


@pytest.mark.parametrize(("backend", "num_devices", "chunk"), MAPPINGS)
def test_a_fold_keeps_one_total_for_each_share_of_the_clients(
    backend, num_devices, chunk
):
    own, common = jnp.arange(1.0, 7.0), jnp.float32(10.0)
    folded = mesh.fold_clients(
        lambda common, x: (x * common, (x, x)),
        mesh.Fold(
            (jnp.zeros(()), jnp.zeros(())),
            lambda total, value: (total[0] + value[0], value[1]),
        ),
        backend=backend,
        num_devices=num_devices,
        chunk=chunk,
        shared=(common,),
    )
    kept, (total, last) = folded(own)
    assert kept.tolist() == [10, 20, 30, 40, 50, 60]
    assert total.shape == (num_devices,)
    assert total.tolist() == ([21] if num_devices == 1 else [6, 15])
    assert last[-1] == 6


def engine(linear, method="fedavg"):
    return federation(
        FEDERATED[method](task(method, num_edges=3, options={"period": 2})),
        num_devices=DEVICES,
        compression=compression("none", keep=1.0, like=()),
        clip=0.0,
        linear=linear,
        mapping=Mapping("scan", 1),
    )


def begun(made, members):
    return streaming.everybody(made.init(jax.random.key(0), members), DEVICES)


def opened(state, members):
    return streaming.core(state), streaming.handed_out(state, members)


def stacked(linear):
    """How many arrays of a round hold a kernel of every device."""
    made = engine(linear)
    first = begun(made, cohort(0))
    shapes = {
        (ACTIVE, *leaf.shape)
        for leaf in jax.tree.leaves(jax.eval_shape(NET.init, jax.random.key(0)).params)
        if leaf.ndim > 1
    }
    traced = jax.make_jaxpr(made.round)(*opened(first, cohort(0)), jax.random.key(0))
    return sum(
        variable.aval.shape in shapes
        for equation in traced.eqns
        for variable in equation.outvars
    )


def test_the_changes_of_all_devices_are_never_in_memory_together():
    assert stacked(linear=True) == 0
    assert stacked(linear=False) > 0


@pytest.mark.parametrize("method", ["fedavg", "hierarchical"])
def test_a_server_that_adds_up_ends_where_one_that_keeps_all_does(method):
    ends = []
    members = cohort(0)
    members.members.edge[:] = [2, 0, 2]  # below one of the edges is nobody
    members = jax.device_put(members)
    for linear in (True, False):
        made = engine(linear, method)
        first = begun(made, members)
        state, *_ = made.round(*opened(first, members), jax.random.key(1))
        ends.append(state)
    for one, other in zip(*map(jax.tree.leaves, ends), strict=True):
        if jnp.issubdtype(one.dtype, jnp.floating):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
