"""What all federated methods share: one contract, faults and messages.

Methods whose server distils have the same contract in `test_federated_server.py`.
"""

import dataclasses
import itertools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import keys, packing
from ecogen_jax.config_federated import ROUNDS
from ecogen_jax.relay.federated import FEDERATED, streaming
from ecogen_jax.relay.federated.compression import COMPRESSIONS
from ecogen_jax.relay.federated.engine import Said, _spoilt
from ecogen_jax.relay.federated.privacy import clip
from ecogen_jax.relay.federated.schedule import DROP, FAULTS, NAN, OK, SHAPE, STALE
from ecogen_jax.relay.messages import ClientUpdate, num_bytes
from ecogen_jax.run import together
from tests.test_mesh import exchanges
from tests.toy_federation import (
    ACTIVE,
    CLASSES,
    DEVICES,
    FLOATS,
    HEAD_FLOATS,
    SIZES,
    assert_close,
    counts,
    distance,
    mixed,
    toy,
)

METHODS = sorted(set(FEDERATED) - {"feddf", "fedftg", *ROUNDS})
STATISTICS = {"fedgen": {"norm": True, "statistics": "own"}}
"""Methods that are tried with BatchNorm, whose statistics stay on the device."""

FAULTY = 2
"""Place of the faulty device in the cohort."""


def of(name, **more):
    return toy(name, **STATISTICS.get(name, {}), **more)


def spoilt(fault, *places, rounds=(0,)):
    """A change of the cohort that gives some devices a fault in some rounds."""

    def change(cohort, number):
        codes = np.array(cohort.fault)
        if number in rounds:
            codes[list(places)] = fault
        return dataclasses.replace(cohort, fault=codes)

    return change


def learnt(state):
    """What a federation has learnt: all but the number of its round."""
    return state.server, state.own, state.errors


@pytest.mark.parametrize("name", METHODS)
def test_rounds_are_finite_repeatable_compiled_once_and_change_the_nets(name):
    played = of(name)
    states, told = played.play(3)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(learnt(states[-1])))
    assert all(np.isfinite(list(each.metrics.values())).all() for each in told)
    assert played.round._cache_size() == 1
    again, _ = played.play(3)
    assert distance(learnt(states[-1]), learnt(again[-1])) == 0.0
    assert [state.number for state in states] == [0, 1, 2, 3]
    nets = [played.stage.trained(state) for state in states]
    assert all(distance(a, b) > 1e-4 for a, b in itertools.pairwise(nets))


@pytest.mark.parametrize(
    "name", ["fedavg", "feddistill", "fedgen", "hierarchical", "scaffold"]
)
def test_devices_that_share_the_work_give_what_one_gives(name):
    split, change = of(name, backend="shard_map", num_devices=2), spoilt(NAN, FAULTY)
    one, other = of(name).play(change=change), split.play(change=change)
    assert_close(learnt(one[0][-1]), learnt(other[0][-1]))
    for told, same in zip(one[1], other[1], strict=True):
        assert told.metrics == pytest.approx(same.metrics, rel=1e-6, abs=1e-6)
        assert told.verdicts.tolist() == same.verdicts.tolist()
        assert_close((told.down, told.up), (same.down, same.up))
    assert split.round._cache_size() == 1


def test_the_devices_of_the_machine_meet_once_in_a_round():
    split = of("fedavg", backend="shard_map", num_devices=2)
    state = together.placed(split.stage, split.first, num_devices=2)
    cohort = together.inputs(split.stage, 0, state, num_devices=2)
    moment = keys.moment(keys.data(keys.root(0)), 1, 0)
    lowered = split.round.lower(streaming.core(state), cohort, moment)
    assert exchanges(lowered.compile()) == 1


@pytest.mark.parametrize("backend", ["loop", "pmap"])
def test_every_backend_gives_the_same(backend):
    # A device of FedDistill looks rows up in what all of them are sent.
    other = toy("feddistill", backend=backend, num_devices=2)
    assert_close(learnt(toy("feddistill").play()[0][-1]), learnt(other.play()[0][-1]))


def test_the_state_is_donated_and_stays_where_it_was_put():
    played = toy("feddistill", backend="shard_map", num_devices=2)
    first = jax.tree.map(np.array, played.first)
    state = together.placed(played.stage, first, num_devices=2)
    own = jax.tree.leaves(state.own)
    places = {leaf.sharding for leaf in jax.tree.leaves(streaming.core(state))}
    compiled = []
    for number in range(2):
        cohort = together.inputs(played.stage, number, state, num_devices=2)
        before = jax.tree.leaves(streaming.core(state))
        moment = keys.moment(keys.data(keys.root(0)), 1, number)
        state, *_ = together.played(
            played.stage, played.round, number, state, cohort, moment
        )
        assert all(leaf.is_deleted() for leaf in before)
        after = jax.tree.leaves(streaming.core(state))
        assert {leaf.sharding for leaf in after} == places
        assert all(map(operator.is_, jax.tree.leaves(state.own), own))
        compiled.append(played.round._cache_size())
    assert compiled[0] == compiled[1]


def test_a_device_draws_the_same_whoever_else_is_sampled():
    one, others = toy("alone"), (0, 2, 4, 5)
    (_, own), (_, other) = (
        [state.own for state in played.play(1)[0]]
        for played in (one, one.on(mixed(), others))
    )
    for device in range(DEVICES):
        nets = [jax.tree.map(lambda a, d=device: a[d], each) for each in (own, other)]
        alike = (device in ACTIVE) == (device in others)
        assert (distance(*nets) == 0.0) == alike


@pytest.mark.parametrize("name", METHODS)
def test_a_round_in_which_nobody_is_heard_changes_nothing(name):
    played, everybody = of(name), range(len(ACTIVE))
    warm = played.play(1)[0][-1]
    # Who trains alone sends nothing that could be spoilt.
    for kind in (DROP, STALE) if name == "alone" else (DROP, NAN, STALE, SHAPE):
        change = spoilt(kind, *everybody, rounds=(1,))
        states, (told,) = played.play(1, state=warm, change=change)
        if name == "hierarchical":  # the cloud's visits come by the calendar
            states[1] = _at_round(states[1], warm.server.number)
        assert distance(learnt(warm), learnt(states[1])) == 0.0
        assert told.verdicts.tolist() == [kind] * len(ACTIVE)
        assert np.isfinite(list(told.metrics.values())).all()


def _at_round(state, number):
    server = dataclasses.replace(state.server, number=number)
    return dataclasses.replace(state, server=server)


HEALTHY = tuple(device for place, device in enumerate(ACTIVE) if place != FAULTY)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name == "relay_rounds"))
        for name in METHODS
        if name != "alone"  # who trains alone sends nothing that could be spoilt
    ],
)
def test_a_faulty_message_is_as_if_its_device_had_not_been_sampled(name):
    played, device = of(name), ACTIVE[FAULTY]
    warm = played.play(1)[0][-1]  # so that there is something to be spoilt
    wanted = of(name, active=HEALTHY).play(1, state=warm)[0][-1]
    for code in range(1, len(FAULTS)):
        change = spoilt(code, FAULTY, rounds=(1,))
        states, told = played.play(2, state=warm, change=change)
        # FedGen's generator is taught by nets of which one program has one more, of
        # weight 0: a moment of Adam differed by 1.1e-6, and values are up to 0.01.
        rounding = 2e-6 if name == "fedgen" else 1e-6
        assert_close(learnt(states[1]), learnt(wanted), atol=rounding)
        assert told[0].verdicts.tolist() == [0, 0, code, 0]
        kept = [jax.tree.map(lambda a: a[device], each.own) for each in states]
        assert distance(kept[0], kept[1]) == 0.0
        if jax.tree.leaves(kept):  # back in the round after it
            assert distance(kept[1], kept[2]) > 0.0
        assert not told[1].verdicts.any()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_message_with_one_array_of_nan_is_refused_however_it_is_compressed(
    compression,
):
    _, (told,) = toy("fedavg", compression=compression).play(1, change=spoilt(NAN, 1))
    assert told.verdicts.tolist() == [OK, NAN, OK, OK]


def test_of_a_message_with_nan_the_smallest_array_alone_is_spoilt():
    sizes = {"large": jnp.ones(5), "small": jnp.ones(2), "whole": jnp.arange(1)}
    sent = ClientUpdate(jnp.int32(3), jnp.int32(8), sizes, {"fact": jnp.ones(3)})
    for code in (OK, NAN):
        arrived = _spoilt(sent, jnp.int32(code))
        assert np.isnan(arrived.payload["small"]).all() == (code == NAN)
        assert np.isfinite(arrived.payload["large"]).all()
        assert np.isfinite(arrived.facts["fact"]).all()


def test_faults_are_told_by_device_and_name():
    played = toy("fedavg")
    said = Said(np.array([DROP, OK, NAN, STALE]), packing.packed(()))
    assert played.stage.together.events(0, said) == [
        {"event": "fault", "device": device, "fault": fault}
        for device, fault in ((0, "drop"), (3, "nan"), (4, "stale"))
    ]


@pytest.mark.parametrize("device", [0, 1, 4])
def test_a_device_takes_each_of_its_images_before_any_of_them_again(device):
    # FedDistill tells how many images of each class went into the eight of a round.
    place = ACTIVE.index(device)
    silent = [other for other in range(len(ACTIVE)) if other != place]
    states, _ = toy("feddistill").play(1, change=spoilt(DROP, *silent))
    seen, own = states[1].server.known.counts, counts(mixed())[device]
    passes, more = divmod(8, SIZES[device])
    assert seen.sum() == 8
    assert np.all(seen >= passes * own)
    assert (seen - passes * own).sum() == more
    assert np.all(seen <= (passes + 1) * own)


def test_flipped_devices_train_on_reversed_labels_and_tell_their_counts():
    played = toy("fedavg", aggregator="trimmed_mean", faults__flip=0.2)
    flips, data = played.settings.federated.plan.flips, mixed()
    assert flips.sum() == round(0.2 * DEVICES)
    (liar,) = np.flatnonzero(flips)
    liars = played.on(data, (liar, *[d for d in ACTIVE if d != liar][:3]))
    members = liars.stage.together.feed(0).members
    for place, device in enumerate(members.device):
        own = data.labels[device][: SIZES[device]]
        told = members.data.labels[place][: SIZES[device]]
        assert np.array_equal(told, CLASSES - 1 - own if device == liar else own)
    assert np.array_equal(members.counts[0], counts(data)[liar][::-1])
    states, _ = liars.play(2)
    assert distance(states[0].server, states[2].server) > 0.0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(states[2].server))


@pytest.mark.parametrize(
    ("compression", "payload"),
    [
        ("none", 4 * FLOATS),
        ("bf16", 2 * FLOATS),
        ("int8", FLOATS + 3 * 4),  # a scale for each of three leaves
        ("topk", 8 * (2 + 2 + 1)),  # a tenth of 20, of 15, and of 3 values
    ],
)
def test_bytes_are_those_of_what_was_compressed(compression, payload):
    played = toy("fedavg", compression=compression)
    number_and_size = 8
    sent = {
        d.direction: d
        for d in played.stage.deliveries(played.parties)
        if d.link == "edge_end"
    }
    messages = 4 * len(ACTIVE)
    assert sent["up"].num_bytes == messages * (payload + number_and_size)
    assert sent["down"].num_bytes == messages * 4 * FLOATS
    up, down = played.stage.together.link_bytes(0)
    assert (4 * up, 4 * down) == (sent["up"].num_bytes, sent["down"].num_bytes)


def test_dropped_messages_cost_nothing():
    played = toy("fedavg").on(mixed())  # with a schedule of its own
    plan = played.settings.federated.plan
    plan.fault[1, :3] = DROP
    plan.fault[1, 3] = NAN
    up, down = played.stage.together.link_bytes(0)
    assert played.stage.together.link_bytes(1) == (up // 4, down)
    (sent,) = (
        each.copies
        for each in played.stage.deliveries(played.parties)
        if (each.link, each.direction) == ("edge_end", "up")
    )
    assert sent == 4 * len(ACTIVE) - 3


def test_what_compression_lost_comes_later():
    played, rough = toy("fedavg"), toy("fedavg", compression="topk", keep=0.5)
    exact, lossy = played.play(1)[0][-1], rough.play(1)[0][-1]
    lost = np.abs(lossy.errors.params["hidden"]["kernel"][list(ACTIVE)])
    assert ((lost == 0).sum(axis=(1, 2)) == 10).all()  # half of the values went
    weights = SIZES[list(ACTIVE)] / SIZES[list(ACTIVE)].sum()
    error = jax.tree.map(
        lambda e: np.einsum("k,k...->...", weights, e[list(ACTIVE)]), lossy.errors
    )
    whole = jax.tree.map(np.add, lossy.server.variables.params, error.params)
    assert_close(whole, exact.server.variables.params)


def test_privacy_clips_every_device_and_counts_who_was_asked():
    bound = 0.01
    # The least noise: a deviation of 0.001 * bound / 4 in each value.
    least = {"privacy__clip": bound, "privacy__noise_multiplier": 1e-3}
    played = toy("fedavg", statistics="local", **least)
    plain = toy("fedavg").on(mixed())
    changes = []
    for place in range(len(ACTIVE)):
        others = [p for p in range(len(ACTIVE)) if p != place]
        change = spoilt(DROP, *others)
        one = plain.play(1, change=change)[0]
        by = jax.tree.map(np.subtract, one[1].server, one[0].server)
        changes.append(clip(by.variables, bound))
    found = played.play(1, change=spoilt(NAN, FAULTY))[0]
    moved = jax.tree.map(np.subtract, found[1].server, found[0].server).variables
    taken = [each for place, each in enumerate(changes) if place != FAULTY]
    wanted = jax.tree.map(lambda *a: sum(a) / np.float32(len(ACTIVE)), *taken)
    assert_close(moved, wanted, atol=5 * 1e-3 * bound / len(ACTIVE), rtol=1e-3)


def test_statistics_are_averaged_or_stay_where_they_were_made():
    shared = toy("fedavg", norm=True)
    kept = toy("fedavg", norm=True, statistics="own")
    assert not shared.first.own.stats
    (states, (told,)), (_, (other,)) = kept.play(1), shared.play(1)
    assert other.down.payload.stats
    assert not told.down.payload.stats
    own, cloud = states[1].own.stats["norm"], states[1].server.variables.stats["norm"]
    means = own["mean"]
    assert distance(means[0], means[1]) > 1e-3
    absent = [device for device in range(DEVICES) if device not in ACTIVE]
    assert not means[absent].any()
    weights = SIZES[list(ACTIVE)]
    for name in ("mean", "var"):
        wanted = np.average(own[name][list(ACTIVE)], axis=0, weights=weights)
        assert cloud[name] == pytest.approx(wanted, rel=1e-5)
    # It is the same training, and the same mean of what it gives.
    assert_close(states[1].server, shared.play(1)[0][1].server, rtol=1e-5)


def test_local_statistics_are_never_sent_and_get_no_noise():
    private = {"privacy__clip": 1.0, "privacy__noise_multiplier": 10.0}
    local = toy("fedavg", norm=True, statistics="local", **private)
    (states, (told,)) = local.play(1)
    assert not jax.tree.leaves((told.down.payload.stats, told.up.facts))
    assert not told.up.payload.stats
    cloud = [state.server.variables.stats for state in states[:2]]
    assert_close(cloud[0], cloud[1], rtol=0)
    own = toy("fedavg", norm=True, statistics="own").play(1)[0][1].own
    assert_close(states[1].own, own, rtol=1e-5)


def test_a_head_alone_is_sent_and_makes_no_net_of_the_cloud():
    played = toy("fedavg", share="head")
    states, (told,) = played.play(1)
    assert num_bytes(told.down) == 4 * HEAD_FLOATS
    assert num_bytes(told.up) == 4 * HEAD_FLOATS + 8
    before, after = (state.server.variables.params for state in states)
    assert distance(before["hidden"], after["hidden"]) == 0.0
    assert distance(before["classifier"], after["classifier"]) > 0.0
    assert played.stage.student == "end"
    assert toy("fedavg").stage.student == "cloud"
    # A device has the mean head on top of its own layers.
    nets = played.stage.trained(states[1]).params
    assert distance(nets["hidden"], states[1].own.params["hidden"]) == 0.0
    for device in range(DEVICES):
        head = jax.tree.map(lambda a, d=device: a[d], nets["classifier"])
        assert distance(head, after["classifier"]) == 0.0
