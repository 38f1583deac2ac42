"""What a federation keeps, tells and weighs from one round to the next."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.nets.functional import Output, Variables
from ecogen_jax.nets.latent import HEAD
from ecogen_jax.relay.federated import schedule
from ecogen_jax.relay.federated.fedgen import Guide, Made, _device_loss
from ecogen_jax.relay.federated.local import ordered
from ecogen_jax.relay.protocols.federated import federated
from tests.toy_federation import (
    ACTIVE,
    KEY,
    assert_close,
    counts,
    distance,
    mixed,
    toy,
)


def drops(place, number):
    """A change of the cohort: the device at a place is lost in one round."""

    def change(cohort, at):
        fault = np.array(cohort.fault)
        fault[place] = schedule.DROP if at == number else schedule.OK
        return replace(cohort, fault=fault)

    return change


def of(tree, place):
    return jax.tree.map(lambda leaf: leaf[place], tree)


@pytest.mark.parametrize("active", [ACTIVE, (0, 1, 2, 3, 4, 5)])  # brought, or picked
def test_flipped_devices_tell_the_counts_of_their_flipped_labels(active):
    settings = toy("fedgen", active=active).settings
    flips = np.array([True, False, False, True, False, False])
    own = settings.federated
    own = own._replace(plan=own.plan._replace(flips=flips))
    cohort = federated(settings._replace(federated=own))[1][0].together.feed(0)
    told = np.stack([cohort.member(place).counts for place in range(len(active))])
    honest = counts(mixed())
    assert (honest[[0, 3]] != honest[[0, 3], ::-1]).any()
    wanted = np.where(flips[:, None], honest[:, ::-1], honest)[list(active)]
    np.testing.assert_array_equal(told, wanted)


@pytest.mark.parametrize("compression", ["int8", "topk"])
def test_error_of_a_refused_message_is_that_of_before(compression):
    states, _ = toy("fedavg", compression=compression).play(2, change=drops(1, 1))
    before, after = (of(state.errors, np.array(ACTIVE)) for state in states[1:])
    assert distance(of(before, 1), jax.tree.map(np.zeros_like, of(before, 1))) > 0
    assert distance(of(before, 1), of(after, 1)) == 0
    assert distance(of(before, 0), of(after, 0)) > 0


def test_edges_weigh_what_they_heard_in_all_rounds_since_the_last_visit():
    def after(period):
        played = toy("hierarchical", hierarchical__period=period)
        return played.play(2, change=drops(0, 0))[0][-1].server

    edges = after(4).edges.variables.params  # before any visit
    # Edge 0 heard 3 images, then 8 + 3; edge 1 twice 8 + 7.
    wanted = jax.tree.map(lambda leaf: (14 * leaf[0] + 30 * leaf[1]) / 44, edges)
    assert_close(after(2).cloud.variables.params, wanted)


def test_a_device_does_not_draw_the_generated_target_to_its_net():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    labels = jnp.asarray([0, 1, 2, 2], jnp.int32)
    output, made = Output(draw(4, 3), {}, {}, ()), Made(labels, draw(4, 5), draw(4, 5))

    def distillation(kernel):
        params = {HEAD: {"kernel": kernel, "bias": jnp.zeros(3)}}
        guide = Guide(Variables({}, {}), jnp.float32(1.0))
        return _device_loss(params, output, labels, guide, made).terms["distillation"]

    value, slope = jax.value_and_grad(distillation)(draw(5, 3))
    assert value > 0
    assert not slope.any()


def test_the_generator_counts_less_from_round_to_round():
    def generated(decay, number):
        made = toy("fedgen", fedgen__decay=decay)
        (states, _), cohort = made.play(0), made.stage.together.feed(number)
        server, member = states[0].server, cohort.member(0)
        own = jax.tree.map(lambda leaf: leaf[0], states[0].own)
        sent = made.method.send(server, jnp.int32(0))
        found = made.method.train(sent, own, ordered(member, KEY), KEY)
        return float(found.metrics["generated"][0])

    assert generated(0.5, 0) == 0.0
    for number in (1, 2):
        assert generated(0.5, number) == pytest.approx(
            0.5**number * generated(1.0, number), rel=1e-5
        )
