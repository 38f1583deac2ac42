"""Whose images come to a round how: with the devices, or as those of everybody lie."""

from dataclasses import replace

import numpy as np

from ecogen_jax.relay.learn import Data
from ecogen_jax.relay.protocols.federated import _counted
from tests.toy_federation import ACTIVE, LENGTH, SIZES, assert_close, mixed, toy

EVERYBODY = (3, 0, 5, 1, 4, 2)
OWN = np.arange(LENGTH) < np.asarray(SIZES)[:, None]
IMAGES = mixed().images * OWN[..., None, None, None]  # what is nobody's is padding


def brought(cohort, number=0):
    """The same cohort, with devices that bring their images."""
    del number
    every, device = cohort.everybody, np.asarray(cohort.members.device)
    own = (IMAGES, every.data.labels, every.data.size, every.edge, every.counts)
    images, labels, size, edge, told = (np.asarray(each)[device] for each in own)
    data = Data(images, labels, size)
    members = replace(cohort.members, data=data, edge=edge, counts=told)
    return replace(cohort, members=members, everybody=())


def test_images_that_a_round_picks_are_those_that_devices_would_bring():
    played = toy("fedavg", active=EVERYBODY)
    picked, told = played.play(2)
    wanted, others = played.play(2, change=brought)
    assert_close(picked[-1], wanted[-1])
    assert_close(told, others)
    cohort = played.stage.together.feed(0)
    for place, device in enumerate(EVERYBODY):
        own = cohort.member(place).data
        np.testing.assert_array_equal(own.images, IMAGES[device])
        np.testing.assert_array_equal(own.labels, (mixed().labels * OWN)[device])


def test_what_is_picked_is_not_copied_and_costs_what_it_did():
    played = toy("fedavg", active=EVERYBODY)
    first, second = (played.stage.together.feed(number) for number in range(2))
    assert first.everybody is second.everybody
    own = played.settings.federated
    counted = [_counted(own, each) for each in (first, brought(first))]
    assert counted[0]["end"] == counted[1]["end"]


def test_devices_bring_their_images_where_some_rest_or_the_work_is_split():
    split = toy("fedavg", active=EVERYBODY, backend="shard_map", num_devices=2)
    for played, active in ((toy("fedavg"), ACTIVE), (split, EVERYBODY)):
        cohort = played.stage.together.feed(0)
        assert cohort.everybody == ()
        np.testing.assert_array_equal(cohort.members.data.images, IMAGES[list(active)])
