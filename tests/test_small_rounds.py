"""A federated round too small for several simulated devices is done by one."""

import jax
import pytest

from ecogen_jax import config as configs
from ecogen_jax.relay.federated.engine import federation
from ecogen_jax.run import build_federated
from ecogen_jax.run.build import build_nets, outline
from ecogen_jax.run.build_federated import SMALL_ROUND, mapping
from ecogen_jax.serve.inference import flops_per_image

SHAPE = (8, 8, 1)


def given(*, images, backend="auto", protocol="fedavg"):
    """A config whose rounds have that many images, its nets and their FLOPs."""
    config = configs.default()
    configs.smoke(config)
    config.protocol.update(name=protocol, cycles=1)
    config.nets.update(cloud="cnn_small", edge="cnn_small", end="cnn_small")
    config.mesh.update(backend=backend, num_devices=2)
    config.federated.update(active=2, steps=images // 4, batch_size=2)
    return config, build_nets(config, SHAPE, 10)


def most():
    """Images of the largest small round."""
    _, nets = given(images=4)
    count = SMALL_ROUND / 3 / flops_per_image(nets.end[0], SHAPE)
    return int(count) // 4 * 4


@pytest.mark.parametrize(("more", "devices"), [(0, 1), (4, 2)])
def test_it_depends_on_the_work_of_a_round(more, devices):
    found = mapping(*given(images=most() + more), SHAPE)
    assert found == ("shard_map", devices, 0)


@pytest.mark.parametrize("how", [{"backend": "shard_map"}, {"protocol": "relay_cycle"}])
def test_a_mapping_that_is_asked_for_and_hops_keep_their_devices(how):
    assert mapping(*given(images=4, **how), SHAPE).num_devices == 2


def test_a_run_and_its_engine_have_the_same(monkeypatch):
    asked = []

    def noted(method, **how):
        asked.append(how["mapping"])
        return federation(method, **how)

    monkeypatch.setattr(build_federated, "federation", noted)
    config, _ = given(images=4)
    experiment = outline(config)
    assert asked == [experiment.mapping]
    assert experiment.mapping.num_devices == 1
    assert jax.device_count() > 1
