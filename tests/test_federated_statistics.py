"""BatchNorm statistics stay possible whatever compression and noise make of them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.federated.received import nets_alone, teachers
from ecogen_jax.relay.federated.sharing import Sharing
from tests.test_federated_server import arrived, of, task


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
