"""The relay cycle: who trains what on what, what it changes and what it sends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.relay.messages import (
    GeneratorAndStudent,
    TeacherWeights,
    bytes_by_link,
)
from tests import toy_cycle, toy_nets
from tests.toy_cycle import EVIDENCE, TOPOLOGY

CYCLE = [
    ("down/cloud_edge", "down", "cloud", "edge", 1),
    ("down/edge_end", "down", "edge", "end", 2),
    ("local", "local", "end", "end", 4),
    ("up/end_edge", "up", "edge", "edge", 2),
    ("up/edge_cloud", "up", "cloud", "cloud", 1),
]
START = [
    ("pretrain", "pretrain", "cloud", "cloud", 1),
    ("local_only", "local_only", "end", "end", 4),
]
FLOAT = 4  # bytes
LABEL_COUNTS = toy_nets.CLASSES * 4


@pytest.fixture(scope="module")
def passages():
    return {(p.cycle, p.stage.name): p for p in toy_cycle.history(cycles=2)}


def equal(one, other):
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), one, other)
    return all(jax.tree.leaves(same))


def party(tree, index):
    return jax.tree.map(lambda a: a[index], tree)


def changed(passage):
    """The fields of the parties that a stage changed."""
    before, after = passage.before, passage.after
    return {
        field
        for field in before.__dataclass_fields__
        if not equal(getattr(before, field), getattr(after, field))
    }


def drawn_labels(passage):
    bank = passage.state.bank
    assert np.all(bank.written == toy_cycle.STEPS * toy_cycle.BATCH)
    return set(np.asarray(bank.labels)[:, : int(bank.written[0])].ravel().tolist())


def sent(passage):
    return passage.stage.deliveries(passage.after)


def test_stages_stand_in_order_and_name_who_works_and_who_is_taught(passages):
    facts = [
        (cycle, stage.name, stage.phase, stage.tier, stage.student, stage.num_parties)
        for (cycle, _), (stage, *_) in passages.items()
    ]
    expected = [(0, *row) for row in START]
    expected += [(cycle, *row) for cycle in (1, 2) for row in CYCLE]
    assert facts == expected


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("pretrain", {"cloud", "cloud_relay"}),
        ("local_only", set()),
        ("down/cloud_edge", {"cloud_relay", "edge", "edge_relay"}),
        ("down/edge_end", {"edge_relay", "end"}),
        ("local", {"end"}),
        ("up/end_edge", {"edge", "edge_relay"}),
        ("up/edge_cloud", {"cloud", "cloud_relay"}),
    ],
)
def test_a_stage_changes_its_own_parties_and_no_other(passages, name, fields):
    for passage in passages.values():
        if passage.stage.name == name:
            assert changed(passage) == fields


def test_pretraining_and_the_baseline_train_on_real_images_alone(passages):
    for name, data in (
        ("pretrain", toy_cycle.IMAGES.public),
        ("local_only", toy_cycle.PRIVATE),
    ):
        passage = passages[0, name]
        assert equal(passage.inputs.data, data)
        assert passage.inputs.replay is None
    trained = passage.stage.trained(passage.state)
    assert not equal(trained.params, passage.before.end[0].params)


def test_down_hops_give_each_receiver_its_sender_s_student(passages):
    for cycle in (1, 2):
        after = passages[cycle, "down/cloud_edge"].after
        for edge in range(2):
            student = party(after.cloud_relay.student, 0)
            assert equal(party(after.edge, edge), student)
            sent, held = (
                (relay.generator, relay.label_counts)
                for relay in (
                    party(after.cloud_relay, 0),
                    party(after.edge_relay, edge),
                )
            )
            assert equal(held, sent)  # and goes on from the generator below
        after = passages[cycle, "down/edge_end"].after
        for device in range(4):
            student = party(after.edge_relay.student, device // 2)
            assert equal(party(after.end[0], device), student)
        first, second = (party(after.edge_relay.student, edge) for edge in range(2))
        assert not equal(first, second)


def test_down_hops_go_on_from_the_student_and_generator_of_the_cycle_before(passages):
    for name, relay in (
        ("down/cloud_edge", "cloud_relay"),
        ("down/edge_end", "edge_relay"),
    ):
        passage = passages[2, name]
        kept = getattr(passage.before, relay)
        state, _ = passage.stage.begin(passage.before, toy_cycle.KEY)
        assert equal((state.generator, state.student), (kept.generator, kept.student))


@pytest.mark.parametrize(
    ("name", "tier", "relay"),
    [("up/end_edge", "edge", "edge_relay"), ("up/edge_cloud", "cloud", "cloud_relay")],
)
def test_up_hops_teach_the_receiver_and_keep_the_student_for_below(
    passages, name, tier, relay
):
    passage = passages[1, name]
    before, after = passage.before, passage.after
    state, _ = passage.stage.begin(before, toy_cycle.KEY)
    assert equal(state.student, getattr(before, tier))
    assert equal(getattr(after, tier), passage.state.student)
    # A receiver that has learnt from real images keeps their statistics.
    assert equal(getattr(after, tier).stats, getattr(before, tier).stats)
    kept, left = getattr(before, relay), getattr(after, relay)
    assert equal(left.student, kept.student)
    assert not equal(left.generator, kept.generator)


def test_down_hops_have_one_teacher_whose_classes_grow_with_the_cycle(passages):
    for cycle, known in ((1, [1, 1, 0]), (2, [1, 1, 1])):
        cloud = passages[cycle, "down/cloud_edge"]
        edge = passages[cycle, "down/edge_end"]
        np.testing.assert_array_equal(cloud.inputs.weights, [[known]])
        np.testing.assert_array_equal(edge.inputs.weights, [[known], [known]])
        assert equal(party(cloud.inputs.groups[0], 0), cloud.before.cloud)
        for index in range(2):
            teacher = party(party(edge.inputs.groups[0], index), 0)
            assert equal(teacher, party(edge.before.edge, index))


def test_a_class_missing_above_is_asked_for_only_once_it_came_up(passages):
    for name in ("down/cloud_edge", "down/edge_end"):
        assert drawn_labels(passages[1, name]) == {0, 1}
        assert drawn_labels(passages[2, name]) == {0, 1, 2}
    # Only the second edge has heard of class 2 from a device below it.
    bank = passages[1, "up/end_edge"].state.bank
    first, second = (
        set(np.asarray(bank.labels[edge])[: int(bank.written[edge])].tolist())
        for edge in range(2)
    )
    assert (first, second) == ({0, 1}, {0, 1, 2})
    assert drawn_labels(passages[1, "up/edge_cloud"]) == {0, 1, 2}


def test_label_counts_travel_with_the_knowledge_they_stand_for(passages):
    everybody = EVIDENCE.public + EVIDENCE.private.sum(axis=0)
    for cycle, counts in ((1, EVIDENCE.public), (2, everybody)):
        above = passages[cycle, "down/cloud_edge"]
        np.testing.assert_array_equal(above.before.cloud_relay.label_counts, [counts])
        for delivery in sent(above) + sent(passages[cycle, "down/edge_end"]):
            for received in delivery.messages.label_counts:
                np.testing.assert_array_equal(received, counts)
    untrained = passages[0, "pretrain"].before
    assert not untrained.cloud_relay.label_counts.any()
    assert not untrained.edge_relay.label_counts.any()


def test_up_hops_weight_devices_and_the_edge_itself_by_their_label_counts(passages):
    inputs = passages[1, "up/end_edge"].inputs
    # Counts of the first edge: devices (4 0 0) and (2 2 0), the cloud's (6 2 0).
    first = [[4 / 12, 0, 0], [2 / 12, 2 / 4, 0], [6 / 12, 2 / 4, 0]]
    second = [[0, 6 / 8, 0], [1 / 7, 0, 1], [6 / 7, 2 / 8, 0]]
    np.testing.assert_allclose(inputs.weights, [first, second], rtol=1e-6)
    # A cycle later the edge's own net stands for everybody's images, 13 10 3.
    later = passages[2, "up/end_edge"].inputs.weights[0]
    expected = [[4 / 19, 0, 0], [2 / 19, 2 / 12, 0], [13 / 19, 10 / 12, 1]]
    np.testing.assert_allclose(later, expected, rtol=1e-6)
    before = passages[1, "up/end_edge"].before
    devices, own = inputs.groups
    for device in range(4):
        teacher = party(party(devices, device // 2), device % 2)
        assert equal(teacher, party(before.end[0], device))
    for edge in range(2):
        assert equal(party(party(own, edge), 0), party(before.edge, edge))


def test_hops_take_a_prior_from_nets_that_no_hop_taught(passages):
    def priors(stage):
        return np.exp(passages[1, stage].inputs.log_priors)

    # Shares of (4 0 0) and (2 2 0), and ten more of each class.
    first = [[14 / 34, 10 / 34, 10 / 34], [12 / 34, 12 / 34, 10 / 34], [1 / 3] * 3]
    np.testing.assert_allclose(priors("up/end_edge")[0], first, rtol=1e-6)
    cloud = [[1 / 3] * 3, [1 / 3] * 3, [16 / 38, 12 / 38, 10 / 38]]
    np.testing.assert_allclose(priors("up/edge_cloud"), [cloud], rtol=1e-6)
    np.testing.assert_allclose(priors("down/cloud_edge"), [cloud[-1:]], rtol=1e-6)
    np.testing.assert_allclose(priors("down/edge_end"), [cloud[:1]] * 2, rtol=1e-6)


def test_up_hops_weight_edges_and_the_cloud_itself_by_their_label_counts(passages):
    passage = passages[1, "up/edge_cloud"]
    edges, own = passage.inputs.groups
    # Counts: edges (6 2 0) and (1 6 3), the cloud's own (6 2 0).
    weights = [[6 / 13, 2 / 10, 0], [1 / 13, 6 / 10, 1], [6 / 13, 2 / 10, 0]]
    np.testing.assert_allclose(passage.inputs.weights, [weights], rtol=1e-6)
    later = passages[2, "up/edge_cloud"].inputs.weights
    weights = [[6 / 20, 2 / 18, 0], [1 / 20, 6 / 18, 0.5], [13 / 20, 10 / 18, 0.5]]
    np.testing.assert_allclose(later, [weights], rtol=1e-6)
    assert equal(party(edges, 0), passage.before.edge)
    assert equal(party(own, 0), passage.before.cloud)


def labelled_replay(passages, cycle):
    """Replay from generators that paint the label and their edge on each image."""
    passage = passages[cycle, "local"]
    relay = passage.before.edge_relay
    shade = jnp.asarray([[-3.0, -2.0, -1.0], [1.0, 2.0, 3.0]])
    label = jnp.broadcast_to(shade[:, :, None], (2, 3, toy_nets.PIXELS))
    noise = jnp.zeros((2, toy_nets.LATENT, toy_nets.PIXELS))
    painting = relay.generator.replace(params={"label": label, "noise": noise})
    parties = passage.before.replace(edge_relay=relay.replace(generator=painting))
    _, inputs = passage.stage.begin(parties, toy_cycle.KEY)
    painted = np.round(255 * jax.nn.sigmoid(shade)).astype(int).tolist()
    return parties, inputs, painted


@pytest.mark.parametrize(("cycle", "known"), [(1, 2), (2, 3)])
def test_devices_replay_known_classes_from_their_own_edge(passages, cycle, known):
    parties, inputs, painted = labelled_replay(passages, cycle)
    assert equal(inputs.data, toy_cycle.PRIVATE)
    images = np.asarray(inputs.replay.images)
    assert images.shape == (4, toy_cycle.REPLAY, *toy_nets.SHAPE)
    for device in range(4):
        assert set(images[device].ravel().tolist()) == set(painted[device // 2][:known])
    # The logits to keep are those of the student as it was received.
    student = party(parties.edge_relay.student, 1)
    scaled = jnp.asarray(images[3] / 255, jnp.float32)
    expected = toy_cycle.NETS.end[0].apply(student, scaled, train=False).value
    np.testing.assert_allclose(inputs.replay.logits[3], expected, atol=0.05)


def test_training_sends_nothing(passages):
    assert sent(passages[0, "pretrain"]) == sent(passages[0, "local_only"]) == []
    assert sent(passages[1, "local"]) == []


def test_down_hops_send_a_generator_and_a_net_to_every_receiver(passages):
    for name, link, tier, copies in (
        ("down/cloud_edge", "cloud_edge", "edge", 2),
        ("down/edge_end", "edge_end", "end", 4),
    ):
        (delivery,) = sent(passages[1, name])
        assert (delivery.link, delivery.direction) == (link, "down")
        assert isinstance(delivery.messages, GeneratorAndStudent)
        net = toy_nets.num_floats(toy_nets.HIDDEN[tier])
        floats = toy_nets.GENERATOR_FLOATS + net
        assert delivery.num_bytes == copies * (floats * FLOAT + LABEL_COUNTS)


def test_up_hops_send_every_net_with_its_label_counts(passages):
    by_edge = EVIDENCE.private.reshape(2, 2, 3).sum(axis=1)
    for name, link, tier, counts in (
        ("up/end_edge", "edge_end", "end", EVIDENCE.private),
        ("up/edge_cloud", "cloud_edge", "edge", by_edge),
    ):
        (delivery,) = sent(passages[1, name])
        assert (delivery.link, delivery.direction) == (link, "up")
        assert isinstance(delivery.messages, TeacherWeights)
        np.testing.assert_array_equal(delivery.messages.label_counts, counts)
        net = toy_nets.num_floats(toy_nets.HIDDEN[tier]) * FLOAT
        assert delivery.num_bytes == TOPOLOGY.size(tier) * (net + LABEL_COUNTS)
        (senders,) = passages[1, name].before.of_tier(tier)
        assert equal(delivery.messages.variables, senders)


def test_bytes_of_a_cycle_add_up_by_link_and_direction(passages):
    deliveries = [d for name, *_ in CYCLE for d in sent(passages[2, name])]
    end, edge = (toy_nets.num_floats(toy_nets.HIDDEN[t]) for t in ("end", "edge"))
    down = {
        tier: FLOAT * (toy_nets.GENERATOR_FLOATS + net) + LABEL_COUNTS
        for tier, net in (("edge", edge), ("end", end))
    }
    assert bytes_by_link(deliveries) == {
        "cloud_edge": (2 * (FLOAT * edge + LABEL_COUNTS), 2 * down["edge"]),
        "edge_end": (4 * (FLOAT * end + LABEL_COUNTS), 4 * down["end"]),
    }


def test_replay_is_counted_for_every_device_and_nothing_else_is_set_up(passages):
    for (cycle, name), passage in passages.items():
        flops = passage.stage.setup_flops(passage.before)
        if name != "local":
            assert flops == 0
            continue
        # Two products of the generator and the net for each image of each device.
        products = toy_nets.LATENT * 4 + toy_nets.HIDDEN["end"] * (4 + toy_nets.CLASSES)
        assert 2 * products < flops / (4 * toy_cycle.REPLAY) < 2 * products + 400, cycle
