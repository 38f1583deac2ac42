"""What makes each federated method itself, against its equations."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ecogen_jax.nets.latent import latent_generator
from ecogen_jax.relay.federated.base import Arrived
from ecogen_jax.relay.federated.feddistill import ByClass
from ecogen_jax.relay.federated.fedgen import (
    diversity,
    generator_objective,
    shared_cross_entropy,
    shares,
)
from ecogen_jax.relay.messages import num_bytes
from tests.toy_federation import (
    ACTIVE,
    CLASSES,
    DECAY,
    DEVICES,
    EDGES,
    FLOATS,
    HEAD_FLOATS,
    PER_EDGE,
    RATE,
    SIZES,
    assert_close,
    counts,
    distance,
    mixed,
    net,
    single,
    toy,
)

HERE = list(ACTIVE)
WEIGHTS = SIZES[HERE] / SIZES[HERE].sum()
OVERHEAD = 8  # number and size of a message


def one_step(cohort, number):
    """Every device does one step of its two."""
    del number
    shares = np.full(len(cohort.fault), 0.5, np.float32)
    return replace(cohort, members=replace(cohort.members, share=shares))


def params(state):
    return state.server.variables.params


def gradient(at, device, data):
    """Gradient of the cross-entropy of a device whose images are all the same."""
    image, label = data.images[device, :1] / np.float32(255), data.labels[device, :1]

    def loss(params):
        variables = net().init(jax.random.key(0)).replace(params=params)
        logits = net().apply(variables, jnp.asarray(image), train=True).value
        return -jax.nn.log_softmax(logits)[0, label[0]]

    return jax.device_get(jax.grad(loss)(at))


def gradients(at, data):
    return [gradient(at, device, data) for device in HERE]


def plus(tree, other, factor=1.0):
    return jax.tree.map(lambda a, b: a + np.float32(factor) * b, tree, other)


def weighted(trees, weights=WEIGHTS):
    return jax.tree.map(
        lambda *leaves: sum(w * leaf for w, leaf in zip(weights, leaves, strict=True)),
        *trees,
    )


def test_fedavg_of_one_step_is_sgd_on_the_images_of_all():
    data = single()
    states, _ = toy("fedavg").on(data).play(3, change=one_step)
    for number, (before, after) in enumerate(itertools.pairwise(states)):
        at, rate = params(before), RATE * DECAY**number
        assert_close(params(after), plus(at, weighted(gradients(at, data)), -rate))


@pytest.mark.parametrize("steps", [1, 2])
def test_a_straggler_does_its_share_of_the_steps(steps):
    data = single()
    change = one_step if steps == 1 else lambda cohort, number: cohort
    states, _ = toy("alone").on(data).play(1, change=change)
    for device in range(DEVICES):
        net, found = (jax.tree.map(lambda a, d=device: a[d], s.own) for s in states)
        wanted = net.params
        for _ in range(steps if device in ACTIVE else 0):
            wanted = plus(wanted, gradient(wanted, device, data), -RATE)
        assert_close(found.params, wanted)


def test_fedprox_without_weight_is_fedavg():
    found, wanted = toy("fedprox", fedprox__weight=0.0).play(), toy("fedavg").play()
    assert distance(found[0][-1].server, wanted[0][-1].server) == 0.0


def numpy_loss(params, image, label, received, weight):
    """`F_k(w) + mu / 2 |w - w_received|^2` of one image, in float64."""
    kernel, head = params["hidden"]["kernel"], params["classifier"]
    features = np.maximum((2.0 * image - 1.0) @ kernel, 0.0)
    logits = features @ head["kernel"] + head["bias"]
    loss = np.log(np.exp(logits).sum()) - logits[label]
    gaps = jax.tree.map(lambda a, b: np.sum((a - b) ** 2), params, received)
    return loss + weight / 2 * sum(jax.tree.leaves(gaps))


def test_fedprox_descends_the_held_loss_by_finite_differences():
    data, weight, device = single(), 0.1, 3

    def alone(cohort, number):  # all others are dropped
        codes = np.where(cohort.members.device == device, 0, 1).astype(np.int32)
        return replace(cohort, fault=codes)

    played = toy("fedprox").on(data)
    first, both = (
        played.play(1, change=lambda c, n, also=also: alone(also(c, n), n))[0][1]
        for also in (one_step, lambda cohort, number: cohort)
    )
    start, middle, end = (
        jax.tree.map(np.float64, params(state)) for state in (played.first, first, both)
    )
    descended = plus(middle, end, -1.0)
    image = data.images[device, 0].reshape(-1) / 255.0
    label, rng = data.labels[device, 0], np.random.default_rng(0)
    for _ in range(5):
        way = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), middle)
        ahead, behind = (
            numpy_loss(
                jax.tree.map(lambda a, b, by=by: a + by * b, middle, way),
                *(image, label, start, weight),
            )
            for by in (1e-5, -1e-5)
        )
        slopes = jax.tree.map(lambda a, b: np.sum(a * b), descended, way)
        found = sum(jax.tree.leaves(slopes)) / RATE
        assert found == pytest.approx((ahead - behind) / 2e-5, rel=1e-3, abs=1e-4)


def test_scaffold_with_equal_control_variates_is_fedavg():
    played = toy("scaffold")
    rng = np.random.default_rng(0)
    control = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
        played.first.server.extra,
    )
    everybody = jax.tree.map(lambda a: np.repeat(a[None], DEVICES, 0), control)
    state = replace(
        played.first,
        server=replace(played.first.server, extra=control),
        own=replace(played.first.own, control=everybody),
    )
    found = params(played.play(1, state=state)[0][1])
    assert_close(found, params(toy("fedavg").play(1)[0][1]), rtol=1e-5)


def test_scaffold_keeps_the_last_gradients_and_their_mean():
    # Of one step, option II gives the gradient at the net that was sent.
    data, played = single(), toy("scaffold")
    states, _ = played.on(data).play(3, change=one_step)
    for before, after in itertools.pairwise(states):
        for device in range(DEVICES):
            control = jax.tree.map(lambda a, d=device: a[d], after.own.control)
            if device in ACTIVE:
                assert_close(control, gradient(params(before), device, data), atol=2e-6)
            else:
                assert distance(control, jax.tree.map(np.zeros_like, control)) == 0.0
        mean = jax.tree.map(lambda a: a.mean(axis=0), after.own.control)
        assert_close(after.server.extra, mean, atol=2e-6)


def test_scaffold_corrects_the_drift_of_a_device():
    data, played = single(), toy("scaffold")
    states, _ = played.on(data).play(2, change=one_step)
    at, server = params(states[1]), states[1].server.extra
    # The net moves by the mean of g - c_k + c, where c_k is the gradient before.
    before = gradients(params(states[0]), data)
    steps = [
        plus(plus(now, old, -1.0), server)
        for now, old in zip(gradients(at, data), before, strict=True)
    ]
    wanted = plus(at, weighted(steps), -RATE * DECAY)
    assert_close(params(states[2]), wanted, atol=2e-6)


def test_scaffold_sends_twice_the_bytes_of_fedavg():
    messages = toy("scaffold").first
    assert num_bytes(messages.last_down) == 2 * 4 * FLOATS
    assert num_bytes(messages.last_up) == 2 * 4 * FLOATS + OVERHEAD


def test_fedavgm_without_momentum_is_fedavg():
    rng = np.random.default_rng(0)
    first, key = toy("fedavg").first, jax.random.key(0)
    updates = jax.tree.map(
        lambda a: jnp.asarray(rng.normal(size=(4, *a.shape)), jnp.float32),
        first.last_up.payload,
    )
    arrived = Arrived(None, updates, {}, jnp.array([3.0, 0.0, 1.0, 5.0]))
    played = toy("fedavgm", fedavgm__momentum=0.0)
    found, _ = played.method.merge(played.first.server, arrived, key)
    wanted, _ = toy("fedavg").method.merge(first.server, arrived, key)
    assert_close(found.variables, wanted.variables)


def test_fedavgm_goes_on_by_its_momentum():
    states, _ = toy("fedavgm").play(2)
    first, second = (
        plus(params(b), params(a), -1.0) for a, b in itertools.pairwise(states)
    )
    plain, _ = toy("fedavg").play(1, state=replace(toy("fedavg").first, **same(states)))
    change = plus(params(plain[1]), params(plain[0]), -1.0)
    assert_close(second, plus(change, first, 0.9))


def same(states):
    """The fields of a state of FedAvg that has the net of another method."""
    server = replace(states[1].server, extra=())
    return {"server": server, "number": states[1].number}


def test_fedadam_takes_the_step_of_adam():
    rate, b1, b2, tau = 0.01, 0.9, 0.99, 1e-3
    states, _ = toy("fedadam").play(2)
    plain = toy("fedavg")
    moment = variance = None
    for number in (0, 1):
        at = replace(plain.first, **{**same([None, states[number]])})
        mean = plain.play(1, state=at)[0][1]
        gradient = plus(params(at), params(mean), -1.0)
        nothing = jax.tree.map(np.zeros_like, gradient)
        moment, variance = (
            jax.tree.map(
                lambda old, g, b=b, power=power: b * old + (1 - b) * g**power,
                nothing if before is None else before,
                gradient,
            )
            for before, b, power in ((moment, b1, 1), (variance, b2, 2))
        )
        wanted = jax.tree.map(
            lambda w, m, v, t=number + 1: (
                w - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + tau)
            ),
            *(params(at), moment, variance),
        )
        assert_close(params(states[number + 1]), wanted, rtol=1e-4, atol=1e-6)


def test_hierarchical_with_a_visit_in_each_round_is_fedavg():
    # Five images are below one edge and fifteen below the other.
    found, _ = toy("hierarchical").play()
    wanted, _ = toy("fedavg").play()
    assert_close(found[-1].server.cloud, wanted[-1].server)
    for edge in range(EDGES):
        below = jax.tree.map(lambda a, e=edge: a[e], found[-1].server.edges)
        assert distance(below, found[-1].server.cloud) == 0.0


def test_between_visits_every_edge_goes_its_own_way():
    played = toy("hierarchical", hierarchical__period=2)
    states, _ = played.play(3)
    clouds = [state.server.cloud for state in states]
    assert distance(clouds[0], clouds[1]) == 0.0
    assert distance(clouds[2], clouds[3]) == 0.0
    # In the round of the visit the edges have trained twice on their own.
    edges = []
    for edge in range(EDGES):
        devices = [device for device in ACTIVE if device // PER_EDGE == edge]

        def below(cohort, number, devices=devices):
            del number
            here = np.isin(cohort.members.device, devices)
            return replace(cohort, fault=np.where(here, 0, 1).astype(np.int32))

        edges.append(params(toy("fedavg").play(2, change=below)[0][2]))
    images = [SIZES[[0, 1]].sum(), SIZES[[3, 4]].sum()]
    wanted = weighted(edges, np.array(images) / sum(images))
    assert_close(clouds[2].variables.params, wanted)
    assert states[1].server.seen.tolist() == images
    assert states[2].server.seen.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("period", "down", "up"), [(1, 4, 4), (2, 2, 2), (3, 2, 1)])
def test_the_cloud_is_met_once_a_period(period, down, up):
    played = toy("hierarchical", hierarchical__period=period)
    found = {
        (d.link, d.direction): d.num_bytes
        for d in played.stage.deliveries(played.parties)
    }
    net_bytes, images = 4 * FLOATS, 4  # the edge tells how many are behind its net
    assert found == {
        ("edge_end", "down"): 4 * len(ACTIVE) * net_bytes,
        ("edge_end", "up"): 4 * len(ACTIVE) * (net_bytes + OVERHEAD),
        ("cloud_edge", "down"): EDGES * down * net_bytes,
        ("cloud_edge", "up"): EDGES * up * (net_bytes + OVERHEAD + images),
    }
    flat = toy("fedavg").stage.deliveries(played.parties)
    passed_on = {(d.link, d.direction): d.num_bytes for d in flat}
    for direction in ("up", "down"):
        ends = passed_on["edge_end", direction]
        assert passed_on["cloud_edge", direction] == ends


def test_an_edge_reports_the_statistics_that_devices_never_get():
    played = toy("hierarchical", norm=True, statistics="own")
    hidden = 5
    (report,) = (
        delivery.messages
        for delivery in played.stage.deliveries(played.parties)
        if (delivery.link, delivery.direction) == ("cloud_edge", "up")
    )
    assert num_bytes(report) == 4 * (FLOATS + 2 * hidden + 1) + OVERHEAD


def test_feddistill_averages_logits_by_the_images_behind_them():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4, CLASSES, CLASSES)).astype(np.float32)
    told = np.array([[3, 0, 0], [1, 0, 2], [9, 9, 9], [0, 0, 2]], np.float32)
    rows[2] = np.nan  # of a device that was refused
    server = toy("feddistill").first.server
    known = ByClass(
        np.full((CLASSES, CLASSES), 5.0, np.float32), np.ones(3, np.float32)
    )
    arrived = Arrived(None, (), ByClass(rows, told), np.float32([8, 3, 0, 5]))
    merge = toy("feddistill").method.merge
    found = merge(replace(server, known=known), arrived, jax.random.key(0))[0].known
    assert found.logits[0] == pytest.approx((3 * rows[0, 0] + rows[1, 0]) / 4)
    assert found.logits[1] == pytest.approx(5.0)  # nobody told: as it was
    assert found.logits[2] == pytest.approx((rows[1, 2] + rows[3, 2]) / 2)
    assert found.counts.tolist() == [4.0, 1.0, 4.0]


def test_feddistill_learns_from_the_mean_logits_of_the_round_before():
    data, weight = single(), 0.1
    played = toy("feddistill").on(data)
    states, metrics = played.play(2, change=one_step)
    images = data.images[HERE, 0] / np.float32(255)
    labels = data.labels[HERE, 0]

    def logits(state):
        return np.stack(
            [
                net().apply(variables(state.own, d), image[None], train=True).value[0]
                for d, image in zip(HERE, images, strict=True)
            ]
        )

    def variables(own, device):
        return jax.tree.map(lambda a: jnp.asarray(a[device]), own)

    at_first = logits(states[0])
    for label in range(CLASSES):
        known = states[1].server.known.logits[label]
        wanted = at_first[labels == label]
        assert known == pytest.approx(wanted.mean(axis=0) if len(wanted) else 0.0)
    p = jax.nn.log_softmax(states[1].server.known.logits[labels])
    # The second step is not done, but its loss is known: the net after the first.
    q = [jax.nn.log_softmax(logits(state)) for state in states[1:]]
    divergence = [float(jnp.mean(jnp.sum(jnp.exp(p) * (p - each), -1))) for each in q]
    assert metrics[0]["distillation"] == 0.0
    wanted = weight * sum(divergence) / 2
    assert metrics[1]["distillation"] == pytest.approx(wanted, rel=1e-4)


def test_feddistill_sends_one_number_for_each_pair_of_classes():
    messages, table = toy("feddistill").first, 4 * (CLASSES**2 + CLASSES)
    assert num_bytes(messages.last_down) == table
    assert num_bytes(messages.last_up) == table + OVERHEAD
    assert toy("feddistill").stage.student == "end"


def test_who_trains_alone_sends_nothing():
    played = toy("alone")
    assert played.stage.deliveries(played.parties) == []
    assert played.stage.together.link_bytes(0) == (0, 0)


def test_diversity_of_fedgen_by_hand():
    noise = jnp.array([[0.0, 1.0], [1.0, 1.0]])
    features = jnp.array([[1.0, 2.0, 3.0], [2.0, 2.0, 1.0]])
    # Two of four pairs differ: by (1 + 0) / 2 squared, and by (1 + 0 + 2) / 3.
    assert diversity(noise, features) == pytest.approx(np.exp(-2 / 4 * 0.5 * 1))


def test_fedgen_weights_devices_by_their_share_of_the_class():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 5, CLASSES)).astype(np.float32)
    labels = np.array([0, 2, 1, 1, 0], np.int32)
    told = np.array([[6.0, 0.0, 1.0], [2.0, 0.0, 1.0], [0.0, 0.0, 0.0]], np.float32)
    share = shares(jnp.asarray(told))
    assert share.tolist() == [[0.75, 0, 0.5], [0.25, 0, 0.5], [0, 0, 0]]
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = -np.mean(
        [
            sum(share[k, y] * log_p[k, i, y] for k in range(3))
            for i, y in enumerate(labels)
        ]
    )
    found = shared_cross_entropy(jnp.asarray(logits), jnp.asarray(labels), share)
    assert found == pytest.approx(wanted, rel=1e-5)


def test_the_gradient_of_the_generator_by_finite_differences():
    played = generating()
    learner = played.first.server.extra
    heads = jax.tree.map(
        lambda leaf: jax.random.normal(jax.random.key(1), (4, *leaf.shape)),
        {"classifier": params(played.first)["classifier"]},
    )
    share = shares(jnp.asarray(counts(mixed())[HERE], jnp.float32))

    objective = generator_objective(
        latent_generator(features=5, num_classes=CLASSES, noise_size=3),
        batch_size=4,
        num_classes=CLASSES,
        noise_size=3,
    )

    def loss(represent):
        generator = {**learner.generator.params, "represent": represent}
        key = jax.random.key(2)
        return objective(generator, learner.generator.stats, heads, share, key)[0]

    represent = jax.tree.map(jnp.asarray, learner.generator.params["represent"])
    check_grads(loss, (represent,), order=1, modes=["rev"], eps=1e-3, rtol=1e-2)


def generating():
    return toy("fedgen", norm=True, statistics="own")


def test_fedgen_lets_devices_learn_from_the_generator_after_the_first_round():
    _, metrics = generating().play(3)
    for term in ("generated", "distillation"):
        assert metrics[0][term] == 0.0
        assert metrics[1][term] > 0.0


def test_the_first_round_of_fedgen_is_fedavg():
    plain = toy("fedavg", norm=True, statistics="own")
    found, wanted = (each.play(1)[0][1] for each in (generating(), plain))
    assert_close(found.server.variables, wanted.server.variables, rtol=1e-5)
    assert distance(found.server.extra, generating().first.server.extra) > 0.0


@pytest.mark.parametrize(("share", "floats"), [("all", FLOATS), ("head", HEAD_FLOATS)])
def test_fedgen_sends_layers_and_generator_down_and_counts_up(share, floats):
    messages = toy("fedgen", share=share).first
    features, noise, hidden = 5, 3, 256
    dense = (noise + CLASSES + 1) * hidden
    norm, last = 4 * hidden, (hidden + 1) * features
    assert num_bytes(messages.last_down) == 4 * (floats + dense + norm + last)
    assert num_bytes(messages.last_up) == 4 * (floats + CLASSES) + OVERHEAD


def test_fedgen_keeps_statistics_on_their_device():
    states, _ = generating().play(1)
    assert not states[1].last_down.payload.net.stats
    means = states[1].own.stats["norm"]["mean"]
    assert distance(means[0], means[1]) > 1e-3
    wanted = np.average(means[HERE], axis=0, weights=SIZES[HERE])
    cloud = states[1].server.variables.stats["norm"]["mean"]
    assert cloud == pytest.approx(wanted, rel=1e-5, abs=1e-6)
