"""A forecast counts what the finished run counts, without its data."""

import json
from collections import Counter

import jax
import pandas as pd
import pytest

from ecogen_jax import config as configs
from ecogen_jax.data import sources
from ecogen_jax.energy import ledger, rates
from ecogen_jax.run import preflight
from ecogen_jax.run.preflight import forecast
from scripts import energy as script

SPEC = "configs/relay_cycle.py:smoke"


IDLE = (
    *("data.name=cifar10", "energy.include_idle=True", "energy.cloud_device=tpu_v4"),
    *("energy.edge_device=server_cpu", "energy.end_device=raspberry_pi_4"),
)


@pytest.fixture(scope="module")
def config(finished):
    return configs.from_dict(json.loads((finished.path / "config.json").read_text()))


@pytest.fixture(scope="module")
def predicted(config):
    return forecast(config)


@pytest.fixture(scope="module")
def waiting():
    """Forecast of another config, for which nothing may be fetched."""

    def refuse(*args, **kwargs):
        raise AssertionError("data was asked for")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "load", refuse)
        return forecast(configs.load(SPEC, IDLE))


def test_entries_are_those_of_the_finished_run(finished, predicted):
    counted = pd.read_csv(finished.path / "ledger.csv")
    frame = ledger.to_frame(predicted[1])
    for column in ("cycle", "phase", "stage", "place", "up_bytes", "down_bytes"):
        assert frame[column].tolist() == counted[column].tolist(), column
    for column in ("flops", "energy_j", "embodied_g", "carbon_market_g"):
        assert frame[column].to_numpy() == pytest.approx(counted[column], rel=0.01)


def test_tiers_that_work_in_turn_wait_for_each_other():
    config = configs.load("configs/federated/fedavg.py:smoke", IDLE[1:])
    experiment, entries = forecast(config)
    here = [entry for entry in entries if entry.stage == "federated"]
    work = {e.place: e.device_s for e in here if e.flops > 0}
    waits: Counter[str] = Counter()
    for entry in here:
        if entry.waits_for:
            waits[entry.place] += entry.idle_j
    pairs = {(e.place, e.waits_for) for e in here if e.idle_j > 0}
    assert pairs == {(t, w) for t in rates.TIERS for w in work if t != w}
    power = {t: cell.value for t, cell in experiment.rates.idle_power.items()}
    active, edges = config.federated.active, config.topology.num_edges
    assert set(work) == {"end", "cloud"}
    assert waits == pytest.approx(
        {
            "cloud": power["cloud"] * work["end"] / active,
            "edge": power["edge"] * edges * (work["end"] / active + work["cloud"]),
            "end": power["end"] * active * work["cloud"],
        }
    )


@pytest.mark.parametrize("name", ["fedavg", "fedgen", "hierarchical"])
def test_operations_of_a_federation_do_not_depend_on_how_it_is_mapped(name):
    def flops(*overrides):
        spec = f"configs/federated/{name}.py:smoke"
        return [entry.flops for entry in forecast(configs.load(spec, overrides))[1]]

    wanted = flops("mesh.num_devices=1")
    assert flops("mesh.num_devices=2") == wanted
    assert flops("mesh.backend=vmap") == wanted


def test_nothing_is_fetched_or_drawn(waiting):
    experiment, entries = waiting
    assert experiment.dataset.train_images.shape == (50_000, 32, 32, 3)
    leaves = jax.tree.leaves(experiment.parties)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    assert sum(entry.flops for entry in entries) > 0


@pytest.mark.parametrize("name", ["mnist", "digits"])
def test_an_outline_has_the_shapes_and_counts_of_the_data(name):
    outline = sources.outline(name)
    assert outline.synthetic
    assert outline.num_classes == 10
    assert outline.train_images.shape[0] == outline.train_labels.shape[0]
    assert (outline.train_images.dtype, outline.train_labels.dtype) == (
        "uint8",
        "int32",
    )
    if name == "digits":
        true = sources.load("digits")
        assert outline.train_images.shape == true.train_images.shape
        assert sorted(outline.test_labels) == sorted(true.test_labels)


def test_parties_wait_for_the_tier_that_works(waiting, predicted):
    entries = waiting[1]
    waits = [entry for entry in entries if entry.idle_j > 0]
    assert not any(entry.idle_j for entry in predicted[1])
    assert len(entries) == len(predicted[1]) + len(waits)
    assert {entry.cycle for entry in waits} == {1, 2}
    work = {
        (e.cycle, e.stage): e for e in entries if e.flops and e.phase != "inference"
    }
    for entry in waits:
        assert entry.place != work[entry.cycle, entry.stage].place
    # Two edges work side by side; the one cloud waits as long as one of them works.
    (wait,) = (
        entry
        for entry in waits
        if (entry.cycle, entry.stage, entry.place) == (1, "up/end_edge", "cloud")
    )
    assert wait.idle_j == pytest.approx(90 * work[1, "up/end_edge"].device_s / 2)


def test_the_script_prints_the_table_and_the_total(
    config, predicted, monkeypatch, capsys
):
    monkeypatch.setattr(preflight, "forecast", lambda config: predicted)
    monkeypatch.setenv("COLUMNS", "40")  # no cell is broken where there is no room
    script.report(config)
    printed = capsys.readouterr().out
    for word in ("pretrain", "down", "local", "inference", "cloud_edge", "edge_end"):
        assert word in printed
    assert "90 % interval" in printed
    assert "modelled; grid: World; links: average view" in printed


def test_the_script_refuses_what_cannot_be_built(monkeypatch, capsys):
    arguments = ["energy.py", "--config", SPEC, "--config.energy.include_idle=True"]
    monkeypatch.setattr("sys.argv", arguments)
    monkeypatch.setattr("ecogen_jax.mesh.start", lambda count: None)
    assert script.main() == 2
    printed = capsys.readouterr().err
    assert "error: energy.end_device = 'jetson_nano' is refused" in printed


def test_a_run_says_what_it_could_not_measure_and_how_sure_it_is(finished):
    summary = json.loads((finished.path / "summary.json").read_text())
    spread = json.loads((finished.path / "uncertainty.json").read_text())
    costs = summary["ledger"]
    places = [costs[tier] for tier in ("cloud", "edge", "end")]
    places += costs["link"].values()
    joules = sum(cost["energy_j"] for cost in places)
    assert summary["total"]["energy_j"]["value"] == pytest.approx(joules, rel=1e-5)
    assert summary["total"]["energy_j"] == spread["energy_j"]
    assert summary["sci"]["cycles"] == 2
    assert summary["sci"]["inferences"] == 2 * 7 * 500
    assert summary["host_energy"]["reason"]
    assert summary["host_energy"]["seconds"] > 0
    assert (finished.path / "plots/tornado.png").exists()
    assert "Software Carbon Intensity" in (finished.path / "report.html").read_text()
