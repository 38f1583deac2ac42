"""What makes each federated method itself, against its equations."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.relay.federated import local
from ecogen_jax.relay.federated.base import Arrived
from ecogen_jax.relay.federated.schedule import DROP, OK
from ecogen_jax.relay.messages import num_bytes
from tests.toy_federation import (
    ACTIVE,
    DECAY,
    DEVICES,
    EDGES,
    FLOATS,
    PER_EDGE,
    RATE,
    SIZES,
    assert_close,
    distance,
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


@pytest.mark.parametrize("few", [0, 8], ids=["loop", "one_by_one"])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_straggler_does_its_share_of_the_steps(steps, few, monkeypatch):
    monkeypatch.setattr(local, "FEW_STEPS", few)
    data = single()
    change = one_step if steps == 1 else lambda cohort, number: cohort
    played = toy.__wrapped__("alone").on(data)  # compiled anew
    states, _ = played.play(1, change=change)
    for device in range(DEVICES):
        net, found = (jax.tree.map(lambda a, d=device: a[d], s.own) for s in states)
        wanted = net.params
        for _ in range(steps if device in ACTIVE else 0):
            wanted = plus(wanted, gradient(wanted, device, data), -RATE)
        assert_close(found.params, wanted)


def test_fedprox_without_weight_is_fedavg():
    found, wanted = toy("fedprox", fedprox__weight=0.0).play(), toy("fedavg").play()
    # Where zero is added, a compiler may round the last digits otherwise.
    assert distance(found[0][-1].server, wanted[0][-1].server) < 1e-6


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


def test_scaffold_aggregates_control_variates_as_it_does_nets():
    states, _ = toy("scaffold", aggregator="median").play(1)
    moved = jax.tree.map(np.subtract, states[1].own.control, states[0].own.control)
    wanted = jax.tree.map(
        lambda each: len(ACTIVE) / DEVICES * np.median(each[list(ACTIVE)], axis=0),
        moved,
    )
    assert_close(states[1].server.extra, wanted, atol=1e-6)


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
    _, (told,) = toy("scaffold").play(1)
    assert num_bytes(told.down) == 2 * 4 * FLOATS
    assert num_bytes(told.up) == 2 * 4 * FLOATS + OVERHEAD


def test_fedavgm_without_momentum_is_fedavg():
    rng = np.random.default_rng(0)
    first, key = toy("fedavg").first, jax.random.key(0)
    updates = jax.tree.map(
        lambda a: jnp.asarray(rng.normal(size=(4, *a.shape)), jnp.float32),
        first.server.variables,
    )
    arrived = Arrived(None, None, updates, {}, jnp.array([3.0, 0.0, 1.0, 5.0]))
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


def test_the_cloud_is_met_in_time_even_if_nobody_was_heard():
    played = toy("hierarchical", hierarchical__period=2)

    def silent_at_first(cohort, number):
        fault = np.full_like(cohort.fault, DROP if number == 0 else OK)
        return replace(cohort, fault=fault)

    states, _ = played.play(2, change=silent_at_first)
    assert distance(states[0].server.edges, states[1].server.edges) == 0.0
    assert [int(state.server.number) for state in states] == [0, 1, 2]
    assert distance(states[1].server.cloud, states[2].server.cloud) > 0.0
    edges = states[2].server.edges
    for edge in range(EDGES):
        below = jax.tree.map(lambda a, e=edge: a[e], edges)
        assert distance(below, states[2].server.cloud) == 0.0


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
    times = {
        (d.link, d.direction): d.times for d in played.stage.deliveries(played.parties)
    }
    assert times == {
        ("edge_end", "down"): 4,
        ("edge_end", "up"): 4,
        ("cloud_edge", "down"): down,
        ("cloud_edge", "up"): up,
    }
    flat = toy("fedavg").stage.deliveries(played.parties)
    passed_on = {(d.link, d.direction): d.num_bytes for d in flat}
    for direction in ("up", "down"):
        ends = passed_on["edge_end", direction]
        assert passed_on["cloud_edge", direction] == ends


def test_averaging_is_counted_where_it_is_done():
    played = toy("hierarchical", hierarchical__period=2)
    between, visit = (played.stage.together.flops(number) for number in (0, 1))
    assert between["cloud"] == 0
    # A mean over edges: a product and a sum for each number, and who is there.
    assert 2 * EDGES * FLOATS <= visit["cloud"] <= 4 * EDGES * FLOATS
    assert between["edge"] == visit["edge"] > visit["cloud"]
    flat = toy("fedavg").stage.together
    assert set(flat.flops(0)) == {"end", "cloud"}


def test_an_edge_reports_the_statistics_that_devices_never_get():
    played = toy("hierarchical", norm=True, statistics="own")
    hidden = 5
    (report,) = (
        delivery.messages
        for delivery in played.stage.deliveries(played.parties)
        if (delivery.link, delivery.direction) == ("cloud_edge", "up")
    )
    assert num_bytes(report) == 4 * (FLOATS + 2 * hidden + 1) + OVERHEAD
