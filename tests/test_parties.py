"""Who there is: sizes of the tiers, and first parameters that are each party's own."""

import jax
import numpy as np
import pytest

from ecogen_jax.relay.parties import TIERS, Topology, initialise
from tests import toy_nets

NETS = toy_nets.nets()
KEY = jax.random.key(0)


def start(edges, below):
    topology = Topology(edges, below)
    return initialise(KEY, NETS, topology, num_classes=toy_nets.CLASSES)


def kernels(variables):
    return np.asarray(variables.params["first"])


@pytest.mark.parametrize(
    ("edges", "below", "sizes"), [(2, 5, [1, 2, 10]), (1, 1, [1, 1, 1])]
)
def test_sizes_of_the_tiers(edges, below, sizes):
    topology = Topology(edges, below)
    assert [topology.size(tier) for tier in TIERS] == sizes
    assert topology.num_devices == sizes[2]


def test_everybody_starts_with_a_net_of_the_own_tier_and_a_relay_for_below():
    parties = start(2, 3)
    for variables, tier, count in (
        (parties.cloud, "cloud", 1),
        (parties.edge, "edge", 2),
        (parties.end, "end", 6),
        (parties.cloud_relay.student, "edge", 1),
        (parties.edge_relay.student, "end", 2),
    ):
        hidden = toy_nets.HIDDEN[tier]
        assert kernels(variables).shape == (count, toy_nets.PIXELS, hidden)
    assert parties.cloud_relay.generator.params["noise"].shape[0] == 1
    assert parties.edge_relay.generator.params["noise"].shape[0] == 2
    # Nobody has heard of any class yet.
    assert parties.cloud_relay.label_counts.tolist() == [[0, 0, 0]]
    assert parties.edge_relay.label_counts.tolist() == [[0, 0, 0]] * 2


def test_no_two_parties_start_alike():
    parties = start(2, 3)
    ends = [*kernels(parties.end), *kernels(parties.edge_relay.student)]
    edges = [*kernels(parties.edge), *kernels(parties.cloud_relay.student)]
    for alike in (ends, edges):
        assert len(np.unique(alike, axis=0)) == len(alike)


def test_a_party_starts_the_same_however_many_others_there_are():
    few, many = start(1, 2), start(2, 3)
    np.testing.assert_array_equal(kernels(few.end), kernels(many.end)[:2])
    np.testing.assert_array_equal(kernels(few.edge), kernels(many.edge)[:1])
    np.testing.assert_array_equal(kernels(few.cloud), kernels(many.cloud))
