"""Who there is: sizes of the tiers, and first parameters that are each party's own."""

import jax
import numpy as np
import pytest

from ecogen_jax.relay.parties import TIERS, Topology, initialise
from tests import toy_nets

NETS = toy_nets.nets()
KEY = jax.random.key(0)


def start(edges, below, nets=NETS):
    topology = Topology(edges, below)
    return initialise(KEY, nets, topology, num_classes=toy_nets.CLASSES)


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
        (*parties.end, "end", 6),
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
    ends = [*kernels(parties.end[0]), *kernels(parties.edge_relay.student)]
    edges = [*kernels(parties.edge), *kernels(parties.cloud_relay.student)]
    for alike in (ends, edges):
        assert len(np.unique(alike, axis=0)) == len(alike)


def test_a_party_starts_the_same_however_many_others_there_are():
    few, many = start(1, 2), start(2, 3)
    np.testing.assert_array_equal(kernels(few.end[0]), kernels(many.end[0])[:2])
    np.testing.assert_array_equal(kernels(few.edge), kernels(many.edge)[:1])
    np.testing.assert_array_equal(kernels(few.cloud), kernels(many.cloud))


def test_kinds_of_net_alternate_below_every_edge():
    topology = Topology(2, 5)
    kinds = [topology.devices_of_kind(kind, 3).tolist() for kind in range(3)]
    assert kinds == [[0, 3, 5, 8], [1, 4, 6, 9], [2, 7]]
    assert topology.devices_of_kind(0, 1).tolist() == list(range(10))


def test_devices_of_several_kinds_start_as_they_would_among_their_own():
    parties = start(2, 3, toy_nets.nets(5, 4))
    assert [kernels(kind).shape for kind in parties.end] == [(4, 4, 5), (2, 4, 4)]
    alone = kernels(start(2, 3).end[0])
    np.testing.assert_array_equal(kernels(parties.end[0]), alone[[0, 2, 3, 5]])
    alone = kernels(start(2, 3, toy_nets.nets(4)).end[0])
    np.testing.assert_array_equal(kernels(parties.end[1]), alone[[1, 4]])


def test_a_tier_is_read_and_replaced_by_its_name():
    parties, other = start(2, 3, toy_nets.nets(5, 4)), start(1, 2, toy_nets.nets(5, 4))
    for tier, count in (("cloud", 1), ("edge", 1), ("end", 2)):
        assert len(parties.of_tier(tier)) == len(NETS.of_tier(tier)[:1]) * count
        changed = parties.with_tier(tier, other.of_tier(tier))
        assert changed.of_tier(tier) == other.of_tier(tier)
        assert all(
            changed.of_tier(same) == parties.of_tier(same)
            for same in TIERS
            if same != tier
        )
    for tier in ("cloud", "edge"):
        changed = parties.with_relay(tier, other.relay_of(tier))
        assert changed.relay_of(tier) is other.relay_of(tier)
        assert changed.of_tier(tier) == parties.of_tier(tier)
