"""A federation through the whole loop: what it logs, what it costs, how it resumes."""

import json

import numpy as np
import pandas as pd
import pytest

from ecogen_jax import config as configs
from ecogen_jax.energy import ledger
from ecogen_jax.relay.federated.schedule import DROP, FAULTS, OK
from ecogen_jax.run import loop, together, writer
from ecogen_jax.run.preflight import forecast
from tests.equal_runs import assert_same_run
from tests.test_resume import finish, killed, standing

SPEC = "configs/federated/fedavg.py:smoke"
ROUNDS, EVERY = 5, 2
KERNELS, BIASES = 784 * 200 + 200 * 200 + 200 * 10, 200 + 200 + 10
FIELDS = (
    *(f"nets.{tier}=mlp" for tier in ("cloud", "edge", "end")),
    *(f"federated.rounds={ROUNDS}", f"federated.evaluate_every={EVERY}"),
    *("federated.active=4", "federated.compression=int8"),
    *("federated.faults.drop=0.2", "federated.faults.nan=0.2"),
    *("federated.faults.stale=0.1", "federated.faults.shape=0.1"),
    *("federated.faults.straggler=0.5", "federated.faults.flip=0.25"),
)


def config(workdir):
    return configs.load(SPEC, [*FIELDS, f"run.workdir={workdir}"])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A finished federation with faults, stragglers and compressed messages."""
    return loop.run(config(tmp_path_factory.mktemp("straight")))


def lines(path):
    text = (path / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def schedule(path, name):
    with np.load(path / "partition.npz") as arrays:
        return arrays[f"schedule_{name}"]


def of_kind(path, event):
    return [line for line in lines(path) if line.get("event") == event]


def test_every_fault_is_an_event_with_its_device_and_round(path):
    active, faults = schedule(path, "active"), schedule(path, "fault")
    wanted = [
        (number + 1, int(device), FAULTS[fault])
        for number in range(ROUNDS)
        for device, fault in zip(active[number], faults[number], strict=True)
        if fault != OK
    ]
    assert {fault for *_, fault in wanted} == set(FAULTS[1:])
    found = of_kind(path, "fault")
    assert [(f["round"], f["device"], f["fault"]) for f in found] == wanted
    assert {f["stage"] for f in found} == {"federated"}


def test_rounds_are_scored_when_asked_and_at_the_end(path):
    scored = [line["round"] for line in of_kind(path, "scores")]
    assert scored == [2, 4, 5]
    chosen = [
        line["round"] for line in lines(path) if "cloud/validation_accuracy" in line
    ]
    assert chosen == scored
    (phase,) = (
        p
        for p in json.loads((path / "summary.json").read_text())["phases"]
        if p["phase"] == "federated"
    )
    last = of_kind(path, "scores")[-1]
    assert phase["accuracy"] == {name: last[name] for name in phase["accuracy"]}
    assert standing(path) == 3


def test_bytes_are_counted_after_compression_and_only_if_sent(path):
    sent = int((schedule(path, "fault") != DROP).sum())
    table = pd.read_csv(path / "ledger.csv").set_index("place")
    scales, number_and_size = 6 * 4, 8
    payload = KERNELS + BIASES + scales + number_and_size
    for link in ("cloud_edge", "edge_end"):
        assert table.loc[link, "up_bytes"] == sent * payload
        assert table.loc[link, "down_bytes"] == ROUNDS * 4 * 4 * (KERNELS + BIASES)
    for direction in ("up", "down"):
        each = [line[f"link/{direction}_bytes"] for line in of_kind(path, "round")]
        assert len(each) == ROUNDS
        assert sum(each) == table.loc["edge_end", f"{direction}_bytes"]


def test_no_image_crosses_a_link(path):
    assert json.loads((path / "summary.json").read_text())["raw_samples_on_links"] == 0


def test_a_forecast_counts_what_the_run_counted(path):
    counted = pd.read_csv(path / "ledger.csv")
    frame = ledger.to_frame(forecast(config("unused"))[1])
    for column in ("cycle", "phase", "stage", "place", "up_bytes", "down_bytes"):
        assert frame[column].tolist() == counted[column].tolist(), column
    for column in ("flops", "energy_j"):
        assert frame[column].to_numpy() == pytest.approx(counted[column], rel=1e-9)


def test_the_ledger_adds_up_the_rounds_by_tier(path):
    table = pd.read_csv(path / "ledger.csv")
    table = table[table["stage"] == "federated"].set_index("place")
    rounds = [line for line in lines(path) if "end/flops" in line]
    for tier in ("end", "cloud"):
        total = sum(line[f"{tier}/flops"] for line in rounds)
        assert table.loc[tier, "flops"] == pytest.approx(total)
        assert total > 0
    shares = schedule(path, "steps_share").sum(axis=1)
    flops = np.array([line["end/flops"] for line in rounds])
    assert flops / flops[0] == pytest.approx(shares / shares[0])


class Killed(BaseException):
    """Ends a run at once, as a signal would."""


def test_a_federation_that_stopped_goes_on_as_if_it_had_not(
    path, tmp_path, monkeypatch
):
    append, count = writer.append_metrics, 0

    def counted(run, records):
        nonlocal count
        append(run, records)
        count += sum(record.get("event") == "round" for record in records)
        if count == ROUNDS - 1:  # in the fourth round, after the checkpoint of two
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(writer, "append_metrics", counted)
        with pytest.raises(Killed):
            loop.run(config(tmp_path))
    assert_same_run(loop.run(config(tmp_path)), path, times_resumed=1)


@pytest.mark.slow
def test_a_killed_federation_loses_nothing(tmp_path):
    # Between the log of the second round, of a generator in training, and its
    # checkpoint: what the first left behind has to come back.
    spec = "configs/federated/fedgen.py:smoke"
    path = killed(tmp_path / "killed", "write", 2, spec)
    assert standing(path) == 1
    straight = finish(tmp_path / "straight", spec)
    assert finish(tmp_path / "killed", spec) == path
    assert_same_run(path, straight, times_resumed=1)


def test_raw_samples_of_all_rounds_are_added(tmp_path, monkeypatch):
    monkeypatch.setattr(together.Auditor, "of_round", lambda *given: 1)
    found = loop.run(configs.load(SPEC, [*FIELDS, f"run.workdir={tmp_path}"]))
    summary = json.loads((found / "summary.json").read_text())
    assert summary["raw_samples_on_links"] == ROUNDS
