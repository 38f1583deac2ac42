"""Routes of hops: who teaches whom, what is sent, and what baselines learn from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.relay.ensemble import equal_weights
from ecogen_jax.relay.messages import (
    GeneratorAndStudent,
    TeacherWeights,
    bytes_by_link,
)
from tests import toy_nets, toy_route
from tests.toy_route import MARK, PRIVATE, PUBLIC, legs

FLOAT = 4  # bytes
COUNTS = toy_nets.CLASSES * 4
EVERYBODY = PRIVATE.sum(axis=0)
BY_EDGE = PRIVATE.reshape(2, 3, 3).sum(axis=1)


def equal(one, other):
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), one, other)
    return all(jax.tree.leaves(same))


def party(tree, *index):
    return jax.tree.map(lambda a: np.asarray(a)[index], tree)


def facts(passages):
    return [
        (stage.name, stage.phase, stage.tier, stage.student, stage.num_parties)
        for stage, *_ in passages.values()
    ]


def net_bytes(tier):
    return FLOAT * toy_nets.num_floats(toy_nets.HIDDEN[tier])


def pair_bytes(tier):
    """A generator, a student and label counts."""
    return FLOAT * toy_nets.GENERATOR_FLOATS + net_bytes(tier) + COUNTS


@pytest.fixture(scope="module")
def down():
    return toy_route.run(
        toy_route.settings(legs("cloud>edge", "edge>end"), start=("pretrain",))
    )


@pytest.fixture(scope="module")
def round_trip():
    route = legs("end>edge", "edge>cloud", "cloud>edge", "edge>end")
    return toy_route.run(toy_route.settings(route, start=("train",)))


def test_a_way_down_trains_the_cloud_and_then_every_sender(down):
    assert facts(down) == [
        ("pretrain", "pretrain", "cloud", "cloud", 1),
        ("down/cloud_edge", "down", "cloud", "edge", 1),
        ("down/edge_end", "down", "edge", "end", 2),
    ]
    assert equal(down["pretrain"].inputs.data, toy_route.data(PUBLIC[None]))
    cloud = [passage.after.cloud for passage in down.values()]
    assert not equal(cloud[0], down["pretrain"].before.cloud)
    assert equal(cloud[0], cloud[2])


def test_each_sender_teaches_a_fresh_student_which_all_below_it_get(down):
    first, second = down["down/cloud_edge"], down["down/edge_end"]
    assert equal(party(first.inputs.groups[0], 0), first.before.cloud)
    for edge in range(2):
        teacher = party(second.inputs.groups[0], edge, 0)
        assert equal(teacher, party(second.before.edge, edge))
        assert equal(party(second.before.edge, edge), party(first.state.student, 0))
    for device in range(6):
        student = party(second.state.student, device // 3)
        assert equal(party(second.after.end[0], device), student)
    for passage in (first, second):
        begun, taught = passage.begun.student.params, passage.state.student.params
        assert np.all(np.asarray(begun["bias"]) == 0)
        np.testing.assert_allclose(taught["bias"], MARK)
        own = (*passage.before.end, passage.before.edge)
        assert not any(
            np.array_equal(begun["first"][0], known.params["first"][0]) for known in own
        )
    firsts = second.begun.student.params["first"]
    assert not np.array_equal(firsts[0], firsts[1])
    assert not np.array_equal(second.begun.extra[0], second.begun.extra[1])


def test_a_generator_starts_afresh_and_stays_with_who_trained_it(down):
    first, second = down["down/cloud_edge"], down["down/edge_end"]
    for passage, tier in ((first, "cloud"), (second, "edge")):
        kept = passage.after.relay_of(tier)
        assert equal(kept.generator, passage.state.generator)
        before = passage.before.relay_of(tier).generator
        assert not equal(passage.begun.generator, before)
        marked = jax.tree.map(lambda a: np.asarray(a) + MARK, passage.begun.generator)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
            passage.state.generator,
            marked,
        )


def test_a_generator_that_is_handed_on_is_where_the_next_sender_starts():
    first, second = legs("cloud>edge", "edge>end")
    route = (first, second._replace(generator="cloud"))
    passages = toy_route.run(toy_route.settings(route, start=("pretrain",)))
    sent = passages["down/cloud_edge"].state.generator
    begun = passages["down/edge_end"].begun.generator
    for edge in range(2):
        assert equal(party(begun, edge), party(sent, 0))


def test_downwards_no_class_is_asked_for_that_the_cloud_has_not_seen(down):
    for name, senders in (("down/cloud_edge", 1), ("down/edge_end", 2)):
        passage = down[name]
        np.testing.assert_array_equal(passage.inputs.weights, [[[1, 1, 0]]] * senders)
        (delivery,) = passage.sent
        np.testing.assert_array_equal(
            delivery.messages.label_counts, [PUBLIC] * senders
        )


def test_downwards_every_receiver_gets_a_generator_and_its_student(down):
    sent = [delivery for passage in down.values() for delivery in passage.sent]
    assert bytes_by_link(sent) == {
        "cloud_edge": (0, 2 * pair_bytes("edge")),
        "edge_end": (0, 6 * pair_bytes("end")),
    }
    for name in ("down/cloud_edge", "down/edge_end"):
        passage, (delivery,) = down[name], down[name].sent
        assert isinstance(delivery.messages, GeneratorAndStudent)
        assert equal(delivery.messages.student, passage.state.student)
        assert equal(delivery.messages.generator, passage.state.generator)


def test_a_direct_hop_crosses_both_links_for_every_device():
    route = legs("cloud>end")
    passages = toy_route.run(toy_route.settings(route, start=("pretrain",)))
    passage = passages["down/cloud_end"]
    assert facts(passages)[1] == ("down/cloud_end", "down", "cloud", "end", 1)
    for device in range(6):
        student = party(passage.state.student, 0)
        assert equal(party(passage.after.end[0], device), student)
    assert equal(passage.after.edge, passage.before.edge)
    crossed = (0, 6 * pair_bytes("end"))
    assert bytes_by_link(passage.sent) == {"cloud_edge": crossed, "edge_end": crossed}
    assert [delivery.link for delivery in passage.sent] == ["cloud_edge", "edge_end"]


def test_without_a_generator_to_replay_the_student_alone_is_sent():
    route = legs("cloud>edge")
    settings = toy_route.settings(route, start=("pretrain",), keeps_generator=False)
    (delivery,) = toy_route.run(settings)["down/cloud_edge"].sent
    assert delivery.num_bytes == 2 * (net_bytes("edge") + COUNTS)


def test_a_way_up_trains_the_devices_and_then_every_receiver(round_trip):
    assert facts(round_trip)[:3] == [
        ("train", "local_only", "end", "end", 6),
        ("up/end_edge", "up", "edge", "edge", 2),
        ("up/edge_cloud", "up", "cloud", "cloud", 1),
    ]
    trained = round_trip["train"]
    assert equal(trained.inputs.data, toy_route.private())
    assert equal(trained.after.end, (trained.stage.trained(trained.state),))
    assert not trained.stage.is_baseline  # they are the teachers
    assert [stage.ensemble for stage, *_ in round_trip.values()] == [
        *("", "end", "edge", "", "")
    ]


def test_all_below_a_receiver_teach_it_weighted_by_what_they_have_seen(round_trip):
    first, second = round_trip["up/end_edge"], round_trip["up/edge_cloud"]
    for device in range(6):
        teacher = party(first.inputs.groups[0], device // 3, device % 3)
        assert equal(teacher, party(first.before.end[0], device))
    weights = [
        [[4 / 6, 0, 0], [2 / 6, 1, 0], [0, 0, 1]],
        [[0, 6 / 8, 0], [1, 0, 3 / 5], [0, 2 / 8, 2 / 5]],
    ]
    np.testing.assert_allclose(first.inputs.weights, weights, rtol=1e-6)
    assert len(first.inputs.groups) == len(second.inputs.groups) == 1
    for edge in range(2):
        assert equal(
            party(second.inputs.groups[0], 0, edge), party(second.before.edge, edge)
        )
        assert equal(party(second.before.edge, edge), party(first.state.student, edge))
    expected = [[[6 / 7, 2 / 10, 5 / 10], [1 / 7, 8 / 10, 5 / 10]]]
    np.testing.assert_allclose(second.inputs.weights, expected, rtol=1e-6)
    assert equal(second.after.cloud, second.state.student)
    for passage in (first, second):
        assert np.all(np.asarray(passage.begun.student.params["bias"]) == 0)


def test_upwards_every_net_is_sent_with_its_label_counts(round_trip):
    for name, tier, link, counts in (
        ("up/end_edge", "end", "edge_end", PRIVATE),
        ("up/edge_cloud", "edge", "cloud_edge", BY_EDGE),
    ):
        (delivery,) = round_trip[name].sent
        assert isinstance(delivery.messages, TeacherWeights)
        np.testing.assert_array_equal(delivery.messages.label_counts, counts)
        (senders,) = round_trip[name].before.of_tier(tier)
        assert equal(delivery.messages.variables, senders)
        total = len(counts) * (net_bytes(tier) + COUNTS)
        assert bytes_by_link([delivery]) == {link: (total, 0)}


def test_after_a_round_trip_devices_hold_the_student_and_know_of_all_classes(
    round_trip,
):
    for name, senders in (("down/cloud_edge", 1), ("down/edge_end", 2)):
        passage = round_trip[name]
        assert len(passage.inputs.groups) == 1
        np.testing.assert_array_equal(passage.inputs.weights, [[[1, 1, 1]]] * senders)
        (delivery,) = passage.sent
        heard = [EVERYBODY] * senders
        np.testing.assert_array_equal(delivery.messages.label_counts, heard)
    last = round_trip["down/edge_end"]
    for device in range(6):
        student = party(last.state.student, device // 3)
        assert equal(party(last.after.end[0], device), student)


def test_a_receiver_that_knows_something_is_one_of_its_own_teachers():
    route = legs("end>edge", "edge>cloud", "end>cloud", returns=("end>cloud",))
    passages = toy_route.run(toy_route.settings(route, start=("train",)))
    passage = passages["up/end_cloud"]
    devices, own = passage.inputs.groups
    assert equal(party(devices, 0), passage.before.end[0])
    assert equal(party(own, 0), passage.before.cloud)
    assert equal(passage.begun.student, passage.before.cloud)
    counts = np.concatenate([PRIVATE, EVERYBODY[None]])
    np.testing.assert_allclose(
        passage.inputs.weights, [counts / counts.sum(axis=0)], rtol=1e-6
    )
    relay = passage.after.cloud_relay
    # The same devices are behind both; each image counts once.
    np.testing.assert_array_equal(relay.label_counts, EVERYBODY[None])
    crossed = (6 * (net_bytes("end") + COUNTS), 0)
    assert bytes_by_link(passage.sent) == {"cloud_edge": crossed, "edge_end": crossed}
    assert [delivery.link for delivery in passage.sent] == ["edge_end", "cloud_edge"]


@pytest.fixture(scope="module")
def kinds():
    """Devices 0, 2, 3 and 5 have one kind of net, 1 and 4 another."""
    return toy_route.run(
        toy_route.settings(
            legs("end>edge", "end>cloud"),
            nets=toy_nets.nets(5, 4),
            start=("train/five", "train/four"),
        )
    )


MEMBERS = ([0, 2, 3, 5], [1, 4])


def test_devices_of_each_kind_train_by_themselves_and_keep_their_nets(kinds):
    for kind, name in enumerate(("train/five", "train/four")):
        stage, before, _, inputs, state, after = kinds[name]
        assert (stage.kind, stage.num_parties) == (kind, len(MEMBERS[kind]))
        assert stage.members == tuple(MEMBERS[kind])
        mine = party(toy_route.private(), MEMBERS[kind])
        assert equal(inputs.data, mine)
        assert equal(after.end[kind], state.variables)
        assert equal(after.end[1 - kind], before.end[1 - kind])


def test_kinds_of_net_are_groups_of_teachers_below_their_own_receiver(kinds):
    five, four = kinds["up/end_edge"].inputs.groups
    before = kinds["up/end_edge"].before.end
    for edge, members in enumerate(([0, 1], [2, 3])):
        assert equal(party(five, edge), party(before[0], members))
        assert equal(party(four, edge, 0), party(before[1], edge))
    ordered = PRIVATE[[[0, 2, 1], [3, 5, 4]]]
    expected = ordered / ordered.sum(axis=1, keepdims=True)
    weights = kinds["up/end_edge"].inputs.weights
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    five, four = kinds["up/end_cloud"].inputs.groups
    assert equal((party(five, 0), party(four, 0)), before)
    ordered = PRIVATE[[*MEMBERS[0], *MEMBERS[1]]]
    weights = kinds["up/end_cloud"].inputs.weights
    np.testing.assert_allclose(weights[0], ordered / EVERYBODY, rtol=1e-6)


def test_each_kind_of_net_is_a_message_of_its_own(kinds):
    sent = kinds["up/end_cloud"].sent
    assert [delivery.link for delivery in sent] == [
        *("edge_end", "edge_end", "cloud_edge", "cloud_edge")
    ]
    for delivery, members in zip(sent, MEMBERS * 2, strict=True):
        assert delivery.copies == len(members)
        np.testing.assert_array_equal(delivery.messages.label_counts, PRIVATE[members])
    total = sum(
        len(members) * (FLOAT * toy_nets.num_floats(hidden) + COUNTS)
        for members, hidden in zip(MEMBERS, (5, 4), strict=True)
    )
    crossed = bytes_by_link(sent)
    assert crossed == {"edge_end": (total, 0), "cloud_edge": (total, 0)}


def test_teachers_may_have_equal_weights():
    route = legs("end>edge")
    settings = toy_route.settings(route, start=("train",), weigh=equal_weights)
    weights = toy_route.run(settings)["up/end_edge"].inputs.weights
    np.testing.assert_allclose(weights, np.full((2, 3, 3), 1 / 3), rtol=1e-6)


def test_nets_of_another_run_are_not_trained_again():
    passages = toy_route.run(toy_route.settings(legs("end>cloud")))
    assert [*passages] == ["up/end_cloud"]


@pytest.fixture(scope="module")
def baselines():
    rng = np.random.default_rng(0)
    digits = rng.integers(0, 256, (5, *toy_nets.SHAPE), dtype=np.uint8)
    return digits, toy_route.run(
        toy_route.settings(
            legs("cloud>edge"),
            start=("pretrain",),
            baselines=("student", "kd", "kd_noise", "kd_digits"),
            images={"kd_digits": digits},
        )
    )


def test_baselines_train_one_fresh_receiver_that_nobody_keeps(baselines):
    _, passages = baselines
    assert facts(passages)[1:-1] == [
        (f"baseline/{name}", "baseline", "cloud", "edge", 1)
        for name in ("student", "kd", "kd_noise", "kd_digits")
    ]
    for passage in [*passages.values()][1:-1]:
        assert equal(passage.after, passage.before)
        assert passage.sent == []
        trained = passage.stage.trained(passage.state).params
        begun = passage.begun.variables.params
        assert trained["first"].shape == (1, toy_nets.PIXELS, toy_nets.HIDDEN["edge"])
        assert not equal(trained, begun)
        known = passage.before.edge.params["first"]
        assert not np.isin(begun["first"], known).any()


def test_baselines_learn_from_labels_or_from_the_cloud_s_logits(baselines):
    digits, passages = baselines
    public = toy_route.data(PUBLIC[None])
    student = passages["baseline/student"].inputs
    assert equal(student.data, public)
    assert student.replay is None
    noise = passages["baseline/kd_noise"].inputs.replay.images
    for name, images in (
        ("kd", public.images),
        ("kd_noise", noise),
        ("kd_digits", digits[None]),
    ):
        passage = passages[f"baseline/{name}"]
        assert passage.inputs.data is None
        np.testing.assert_array_equal(passage.inputs.replay.images, images)
        scaled = jnp.asarray(np.asarray(images[0]) / 255, jnp.float32)
        cloud = party(passage.before.cloud, 0)
        net = toy_nets.classifier(toy_nets.HIDDEN["cloud"])
        expected = net.apply(cloud, scaled, train=False).value
        np.testing.assert_allclose(passage.inputs.replay.logits[0], expected, rtol=1e-5)
    assert noise.shape == public.images.shape
    assert len(np.unique(noise)) > noise.size / 2


def test_asking_the_teacher_is_counted_for_each_image(baselines):
    digits, passages = baselines
    flops = {
        name: passage.stage.setup_flops(passage.before)
        for name, passage in passages.items()
    }
    assert flops["baseline/student"] == flops["pretrain"] == 0
    hidden = toy_nets.HIDDEN["cloud"]
    products = 2 * hidden * (toy_nets.PIXELS + toy_nets.CLASSES)
    for name, count in (("kd", 8), ("kd_noise", 8), ("kd_digits", len(digits))):
        each = flops[f"baseline/{name}"] / count
        assert products < each < products + 20 * hidden
