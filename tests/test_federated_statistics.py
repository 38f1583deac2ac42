"""BatchNorm statistics: possible, robust where nets are, and with whom they belong."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.federated import FEDERATED
from ecogen_jax.relay.federated.aggregate import median
from ecogen_jax.relay.federated.base import Arrived
from ecogen_jax.relay.federated.received import nets_alone, teachers
from ecogen_jax.relay.federated.sharing import Sharing
from tests.test_federated_server import arrived, of, task
from tests.toy_federation import EDGES, distance, toy


def test_the_server_has_no_variance_below_zero():
    stats = {"norm": {"mean": jnp.zeros(2), "var": jnp.ones(2)}}
    change = jax.tree.map(lambda a: -3 * jnp.ones_like(a), stats)
    after = Sharing(head_only=False, keeps_statistics=False).gathered(
        Variables({}, stats), Variables({}, change), {}
    )
    assert after.stats["norm"]["mean"].tolist() == [-3.0, -3.0]
    assert after.stats["norm"]["var"].tolist() == [0.0, 0.0]


def test_a_teacher_has_no_variance_below_zero():
    given = task("feddf", keeps_statistics=False)
    sent, found = arrived(given)
    stats = jax.tree.map(lambda a: jnp.full_like(a, -9.0), found.updates.stats)
    found = replace(found, updates=replace(found.updates, stats=stats))
    weights = jnp.full((3, 3), 1 / 3)
    (nets,) = teachers(given, sent, nets_alone(found), weights).groups
    got = of(0, nets).stats
    for layer, before in sent.stats.items():
        assert not got[layer]["var"].any()
        np.testing.assert_allclose(got[layer]["mean"], before["mean"] - 9.0)


def test_statistics_bear_with_a_false_report_where_nets_do():
    given = task("fedavg", aggregate=lambda sent, weights, key: median(sent, weights))
    method = FEDERATED["fedavg"](given)
    server = method.init(jax.random.key(0))
    stats = server.variables.stats
    reports = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 1, leaf + 1e6]), stats)
    updates = Variables(server.variables.params, {})
    found = Arrived(
        jnp.arange(3),
        jnp.zeros(3, jnp.int32),
        jax.tree.map(lambda leaf: jnp.zeros((3, *leaf.shape)), updates),
        reports,
        jnp.ones(3),
    )
    after, _ = method.merge(server, found, jax.random.key(1))
    want = jax.tree.map(lambda leaf: leaf + 1, stats)
    jax.tree.map(np.testing.assert_array_equal, after.variables.stats, want)


def test_an_edge_keeps_the_statistics_of_its_own_devices_when_the_cloud_comes():
    played = toy("hierarchical", norm=True, statistics="own", hierarchical__period=1)
    states, _ = played.play(1)
    edges, cloud = states[-1].server.edges.variables, states[-1].server.cloud.variables
    for edge in range(EDGES):
        assert distance(of(edge, edges.params), cloud.params) == 0.0
        assert distance(of(edge, edges.stats), cloud.stats) > 0.0
    assert distance(of(0, edges.stats), of(1, edges.stats)) > 0.0
