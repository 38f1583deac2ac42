"""No raw image crosses a link: every delivery of a finished run, and a smuggler."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

import ecogen_jax
from ecogen_jax import config as configs
from ecogen_jax import keys, packing
from ecogen_jax.data import sources
from ecogen_jax.data.sources import Dataset
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.federated import streaming
from ecogen_jax.relay.federated.engine import Said
from ecogen_jax.relay.messages import (
    MESSAGE_TYPES,
    Delivery,
    TeacherWeights,
    audit,
    fingerprints,
)
from ecogen_jax.relay.protocols import PROTOCOLS, relay_cycle
from ecogen_jax.run.build import build
from ecogen_jax.run.loop import run
from ecogen_jax.run.together import Auditor
from tests.toy_federation import CLASSES, KEY, mixed, toy

IMAGE_SIZE = 28 * 28
SECRET = mixed().images[0, 0]
"""A real image of a toy federation, which a smuggler hides in a net."""


@pytest.fixture(scope="module")
def dataset():
    return sources.load("fake")


@pytest.fixture(scope="module")
def real(dataset):
    return fingerprints(dataset.train_images) | fingerprints(dataset.test_images)


@pytest.fixture(scope="module")
def deliveries(finished):
    """What every stage of the run's plan sends, from the parties at its end."""
    loaded = ecogen_jax.load_run(finished.path)
    plan = build(loaded.config).plan
    return {
        (cycle, stage.name): stage.deliveries(loaded.parties) for cycle, stage in plan
    }


def test_every_hop_sends_a_message_type_without_a_raw_sample(deliveries, real):
    assert len(deliveries) == 12
    for (_, stage), sent in deliveries.items():
        assert len(sent) == ("/" in stage)
        for delivery in sent:
            assert isinstance(delivery.messages, MESSAGE_TYPES)
            assert audit(delivery.messages, real, IMAGE_SIZE) == 0


def test_the_bytes_of_the_run_are_those_of_its_deliveries(deliveries, finished):
    summary = json.loads((finished.path / "summary.json").read_text())
    for link, cost in summary["ledger"]["link"].items():
        for direction in ("up", "down"):
            total = sum(
                delivery.num_bytes
                for sent in deliveries.values()
                for delivery in sent
                if (delivery.link, delivery.direction) == (link, direction)
            )
            assert cost[f"{direction}_bytes"] == total > 0


@pytest.mark.parametrize("scale", [None, 255])
def test_images_hidden_among_weights_are_counted(deliveries, dataset, real, scale):
    (delivery,) = deliveries[1, "up/edge_cloud"]
    images = dataset.train_images[:3]
    if scale:
        images = (images / scale).astype(np.float32)
    variables = delivery.messages.variables
    smuggled = variables.replace(params={**variables.params, "hidden": images})
    message = delivery.messages.replace(variables=smuggled)
    assert audit(message, real, IMAGE_SIZE) == 3


# A protocol that sends raw images, run as any other.


def smuggling(payload):
    """The relay cycle's pre-training, after which the cloud sends `payload`."""

    def protocol(settings):
        start, _ = relay_cycle(settings)
        sent = payload(jax.tree.map(np.asarray, settings.images))
        delivery = Delivery("cloud_edge", "down", sent, 1)
        return [start[0]._replace(deliveries=lambda parties: [delivery])], []

    return protocol


def small(workdir):
    overrides = [f"run.workdir={workdir}", "pretrain.rounds=1"]
    return configs.load("configs/quickstart.py:smoke", overrides)


def test_a_run_counts_the_raw_samples_on_its_links(monkeypatch, tmp_path):
    def weights(images):
        kernel = {"kernel": images.public.images[:, :5]}
        return TeacherWeights(Variables(kernel, {}), np.zeros((1, 10), np.int32))

    monkeypatch.setitem(PROTOCOLS, "relay_cycle", smuggling(weights))
    summary = json.loads((run(small(tmp_path)) / "summary.json").read_text())
    assert summary["raw_samples_on_links"] == 5


def test_a_run_refuses_to_send_what_is_no_message(monkeypatch, tmp_path):
    def data(images):
        return images.public

    monkeypatch.setitem(PROTOCOLS, "relay_cycle", smuggling(data))
    with pytest.raises(TypeError, match="Data may not cross a link"):
        run(small(tmp_path))
    (path,) = (tmp_path / "quickstart_smoke").iterdir()
    assert not (path / "summary.json").exists()


@pytest.fixture(scope="module")
def auditor():
    image, labels = SECRET[None], np.zeros(1, np.int32)
    return Auditor(Dataset("toy", image, labels, image, labels, CLASSES, True, "none"))


def smuggled(net):
    """The net of the toy, with an image scaled to [0, 1] among its weights."""

    def leaf(values):
        kernel = np.array(values)
        if values.size % SECRET.size == 0:
            kernel.reshape(-1)[-SECRET.size :] = SECRET.reshape(-1) / np.float32(255)
        return kernel

    return jax.tree.map(leaf, net)


@pytest.mark.parametrize("backend", ["vmap", "shard_map"])
def test_messages_of_a_federation_are_searched_both_ways(auditor, backend):
    played = toy("fedavg", backend=backend, num_devices=2)
    cohort, moment = played.stage.together.feed(0), keys.moment(keys.data(KEY), 1, 0)
    cohort = streaming.handed_out(played.first, cohort)
    core = jax.device_put(streaming.core(played.first))
    state, _, said = played.round(core, cohort, moment)
    assert auditor.of_round(played.stage, 1, state, said) == 0
    bad = replace(state, server=smuggled(state.server))
    assert auditor.of_round(played.stage, 1, bad, said) == 1
    (payload, facts) = packing.unpacked(jax.device_get(said.messages))
    sent = jax.device_put(packing.packed((smuggled(payload), facts)))
    assert auditor.of_round(played.stage, 1, state, Said(said.verdicts, sent)) == 1
