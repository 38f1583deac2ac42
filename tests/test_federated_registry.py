"""What a config may ask of a federation is there, and a server's collapse is seen."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from ecogen_jax import config as configs
from ecogen_jax import config_federated
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.distillers import DISTILLERS
from ecogen_jax.relay.distillers.base import COLLAPSE
from ecogen_jax.relay.federated import FEDERATED
from ecogen_jax.relay.federated.aggregate import AGGREGATORS
from ecogen_jax.relay.federated.compression import COMPRESSIONS
from tests.test_federated_server import cohort, run, task

STEPS = 2  # of the server in a round


def test_what_the_config_allows_is_what_the_registries_have():
    assert set(config_federated.METHODS) == set(FEDERATED)
    assert set(config_federated.AGGREGATORS) == set(AGGREGATORS)
    assert set(config_federated.COMPRESSIONS) == set(COMPRESSIONS)
    assert set(config_federated.ROUNDS.values()) <= set(DISTILLERS)


@pytest.mark.parametrize("share", ["all", "head"])
def test_the_config_tells_which_methods_have_a_net_of_the_cloud(share):
    config = configs.default()
    config.federated.share = share
    for name in FEDERATED:
        config.protocol.name = name
        options = dict(config.federated.get(name, {}))
        method = FEDERATED[name](task(name, share=share, options=options))
        assert config_federated.has_cloud_net(config) == method.has_cloud_net, name


@pytest.mark.parametrize("name", config_federated.ROUNDS)
def test_the_steps_of_one_class_are_counted_from_round_to_round(name):
    played = run(name)
    sane, metrics = played.rounds()
    assert metrics[COLLAPSE].item() == int(sane.server.extra.one_class_steps)

    # A net that is sure of one class whatever it sees, and so are all teachers.
    server = played.first.server
    params, stats = server.variables.params, server.variables.stats
    sure = Variables({**params, "bias": params["bias"].at[0].set(1e3)}, stats)
    state = replace(played.first, server=replace(server, variables=sure))
    for number in range(2):
        key = jax.random.key(number)
        state, metrics, _ = played.round(state, cohort(number), key)
        assert metrics[COLLAPSE].item() == STEPS * (number + 1)
    assert jnp.shape(metrics[COLLAPSE]) == (1, 1)
