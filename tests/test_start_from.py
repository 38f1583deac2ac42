"""The first senders come from a finished run, which has to be about the same data."""

import json
import shutil

import jax
import numpy as np
import pytest

import ecogen_jax
from ecogen_jax import config as configs
from ecogen_jax.config import ConfigError
from ecogen_jax.run import loop, results, start_from, writer
from ecogen_jax.run.build import build, outline
from ecogen_jax.run.start_from import digest, start

FIRST = {"cloud": "cloud>edge", "end": "end>cloud"}


def config(finished, tier, *overrides):
    """A run of one hop that starts from the finished relay cycle."""
    words = (
        "protocol.name=hops",
        "protocol.cycles=1",
        f"protocol.start_from={finished}",
        f"protocol.route={(FIRST[tier],)}",
    )
    return configs.load("configs/relay_cycle.py:smoke", [*words, *overrides])


@pytest.fixture(scope="module")
def other(finished):
    return ecogen_jax.load_run(finished.path)


def same(one, two):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("tier", ["cloud", "end"])
def test_the_first_senders_are_those_of_the_other_run_and_nobody_else(
    finished, other, tier
):
    here = config(finished.path, tier, "seed=0")
    untrained = build(here).parties
    begun = start(here, untrained)
    for name in ("cloud", "edge", "end"):
        taken = same(getattr(begun.parties, name), getattr(other.parties, name))
        assert taken == (name == tier)
        kept = same(getattr(begun.parties, name), getattr(untrained, name))
        assert kept == (name != tier)
    assert begun.manifest == {
        "path": str(finished.path),
        "sha256": digest(getattr(other.parties, tier)),
    }


def become(monkeypatch, other, fields):
    """Gives the run that is started from these fields."""
    changed = other.config.copy_and_resolve_references()
    changed.update_from_flattened_dict(fields)
    monkeypatch.setattr(
        start_from, "load_run", lambda path: other._replace(config=changed)
    )


def route(monkeypatch, other, *legs):
    """Makes the run that is started from one of these hops."""
    fields = {"protocol.name": "hops", "protocol.route": legs}
    become(monkeypatch, other, fields)


def test_devices_bring_their_baseline_and_the_cloud_has_none(
    finished, other, monkeypatch
):
    alone = other.summary["baselines"]["local_only"]
    devices, cloud = (config(finished.path, tier) for tier in ("end", "cloud"))
    # After a relay cycle the devices are no longer those that were scored alone.
    assert start(devices, outline(devices).parties).baselines == {}
    route(monkeypatch, other, "end>cloud")
    assert start(devices, outline(devices).parties).baselines == {"local_only": alone}
    assert start(cloud, outline(cloud).parties).baselines == {}


def test_a_run_that_taught_its_first_senders_again_is_refused(
    finished, other, monkeypatch
):
    route(monkeypatch, other, "end>edge", "edge>end", "end>cloud")
    here = config(finished.path, "end")
    with pytest.raises(ConfigError, match=r"protocol.start_from.*'edge>end'"):
        start(here, outline(here).parties)
    here = config(finished.path, "cloud")
    assert start(here, outline(here).parties).manifest is not None


@pytest.mark.parametrize(
    ("tier", "fields"),
    [
        ("cloud", {"protocol.name": "alone"}),
        ("cloud", {"protocol.name": "feddistill"}),
        ("cloud", {"protocol.name": "fedavg", "federated.share": "head"}),
        ("cloud", {"protocol.name": "hops", "protocol.route": ("end>edge",)}),
        ("end", {"protocol.name": "hops", "protocol.route": ("cloud>edge",)}),
        ("end", {"protocol.name": "hops", "protocol.route": ()}),
    ],
)
def test_a_run_that_never_trained_the_first_senders_is_refused(
    finished, other, monkeypatch, tier, fields
):
    become(monkeypatch, other, fields)
    here = config(finished.path, tier)
    with pytest.raises(ConfigError, match=f"run's {tier} was never trained") as error:
        start(here, outline(here).parties)
    assert error.value.field == "protocol.start_from"


@pytest.mark.parametrize(
    ("tier", "fields"),
    [
        ("cloud", {"protocol.name": "fedavg"}),
        ("end", {"protocol.name": "alone"}),
        ("cloud", {"protocol.name": "hops", "protocol.route": ("end>cloud",)}),
        ("cloud", {"protocol.name": "hops", "protocol.route": ()}),
    ],
)
def test_who_was_trained_in_whatever_way_may_send(
    finished, other, monkeypatch, tier, fields
):
    become(monkeypatch, other, fields)
    here = config(finished.path, tier)
    assert start(here, outline(here).parties).manifest is not None


def test_without_a_run_everybody_is_untrained():
    parties = outline(configs.load("configs/relay_cycle.py:smoke")).parties
    begun = start(configs.load("configs/relay_cycle.py:smoke"), parties)
    assert begun.parties is parties
    assert begun.manifest is None


@pytest.mark.parametrize(
    ("tier", "field", "value", "theirs"),
    [
        ("cloud", "nets.cloud", "cnn_small", "'cnn_large'"),
        ("cloud", "seed", 3, "0"),
        ("cloud", "data.public_fraction", 0.75, "0.5"),
        ("cloud", "data.alpha", 0.7, "0.3"),
        ("end", "data.validation_fraction", 0.25, "0.1"),
        ("end", "topology.devices_per_edge", 1, "2"),
    ],
)
def test_a_run_of_other_data_or_another_net_is_refused(
    finished, tier, field, value, theirs
):
    here = config(finished.path, tier, f"{field}={value}")
    parties = outline(here).parties
    with pytest.raises(ConfigError) as error:
        start(here, parties)
    assert error.value.field == field
    assert str(value) in str(error.value)
    assert f"{theirs}, as in the run of protocol.start_from" in str(error.value)


def test_a_run_whose_devices_have_another_batch_at_least_is_refused(finished):
    theirs = configs.load("configs/relay_cycle.py:smoke").local.batch_size
    here = config(finished.path, "end", f"local.batch_size={theirs + 1}")
    with pytest.raises(ConfigError, match=rf"local.batch_size.*{theirs}, the fewest"):
        start(here, outline(here).parties)


def test_fields_of_other_tiers_may_differ(finished):
    here = config(
        finished.path, "cloud", "nets.edge=mlp", "topology.devices_per_edge=1"
    )
    assert start(here, outline(here).parties).manifest is not None


def test_an_unfinished_run_is_refused(tmp_path, finished):
    (tmp_path / "config.json").write_text("{}")
    here = config(tmp_path, "cloud")
    with pytest.raises(ConfigError, match=r"start_from = .*not finished"):
        start(here, outline(here).parties)


@pytest.mark.parametrize(
    "name", ["config.json", "summary.json", "_CHECKPOINT_METADATA"]
)
def test_a_damaged_run_is_refused_by_the_field_that_names_it(finished, tmp_path, name):
    damaged = shutil.copytree(finished.path, tmp_path / "damaged")
    for file in damaged.rglob(name):
        file.write_bytes(file.read_bytes()[:10])
    here = config(damaged, "cloud")
    message = rf"^protocol.start_from = '{damaged}' .*run \(.*{damaged}.*put .*back"
    with pytest.raises(ConfigError, match=message):
        start(here, outline(here).parties)


def test_a_wrong_run_is_refused_before_there_is_a_folder(tmp_path):
    here = config(tmp_path / "nowhere", "cloud", f"run.workdir={tmp_path}/runs")
    with pytest.raises(ConfigError, match=r"start_from = .*a finished run"):
        loop.run(here)
    assert not (tmp_path / "runs").exists()


def test_the_manifest_names_the_run(finished, tmp_path):
    here = config(finished.path, "cloud", f"run.workdir={tmp_path}")
    experiment = outline(here)
    begun = start(here, experiment.parties)
    with writer.open_run(tmp_path, "x", 0, configs.to_dict(here)) as folder:
        results.first_files(here, experiment, folder, ["train.py"], begun.manifest)
        manifest = json.loads((folder.path / "manifest.json").read_text())
    assert manifest["start_from"]["path"] == str(finished.path)
    assert len(manifest["start_from"]["sha256"]) == 64


def test_a_digest_sees_values_places_and_types():
    tree = {"a": np.arange(4, dtype=np.float32), "b": np.zeros(2, np.float32)}
    others = [
        {**tree, "b": np.array([0, -0.0], np.float32)},
        {**tree, "a": tree["a"].reshape(2, 2)},
        {**tree, "b": np.zeros(1, np.float64)},
        {"c": tree["a"], "b": tree["b"]},
    ]
    digests = {digest(other) for other in others}
    assert len(digests) == 4
    assert digest(tree) not in digests
    assert digest(jax.tree.map(np.copy, tree)) == digest(tree)
