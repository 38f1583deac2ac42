"""The loop over toy stages: what it compares with, what it remembers."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from ecogen_jax import mesh
from ecogen_jax.run import loop, writer
from ecogen_jax.run.checkpoint import CheckpointError, Checkpoints
from ecogen_jax.run.clock import Clock
from ecogen_jax.run.diverged import DivergedError
from ecogen_jax.run.hops import training_curve
from tests.toy_loop import ROUNDS, STEPS, diverging, folder, log, player, read, stage


@pytest.fixture
def play(tmp_path, monkeypatch):
    return player(tmp_path, monkeypatch)


def test_lines_that_are_gone_are_told_with_the_remedy(play):
    bad = stage("down", "edge", metrics=diverging, parties=2)
    with pytest.raises(DivergedError):
        play((1, bad))
    (folder(play) / "metrics.jsonl").write_text("")
    with pytest.raises(CheckpointError, match=r"has 0 lines, but .*put the file back"):
        play((1, bad))


def test_a_manifest_that_is_cut_or_gone_is_told_with_the_remedy(play):
    bad = stage("down", "edge", metrics=diverging, parties=2)
    with pytest.raises(DivergedError):
        play((1, bad))
    manifest = folder(play) / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:10])
    with pytest.raises(CheckpointError, match=r"manifest.json is damaged .*file back"):
        play((1, bad))
    manifest.unlink()
    with pytest.raises(CheckpointError, match=r"manifest.json is missing; put the"):
        play((1, bad))


def test_a_logged_loss_is_the_mean_over_steps_and_parties(play):
    def metrics(done, party):
        return {"loss": (done + 10 * party).astype(jnp.float32)}

    path = play((1, stage("down", "edge", metrics=metrics, parties=2)))
    expected = [np.mean(np.arange(4) + 1 + 4 * r) + 5 for r in range(ROUNDS)]
    assert [line["edge/loss_loss"] for line in log(path)] == pytest.approx(expected)


def test_a_loss_of_the_server_of_a_federation_is_logged_as_the_cloud_s(play):
    def metrics(done, party):
        return {name: jnp.float32(1.0) for name in ("balance", "server_balance")}

    path = play((1, stage("down", "end", metrics=metrics, parties=2)))
    names = {name for line in log(path) for name in line if name.endswith("_loss")}
    assert names == {"end/balance_loss", "cloud/balance_loss"}


def test_metrics_leave_the_device_once_a_round(play, monkeypatch):
    every, real = [], mesh.to_host
    monkeypatch.setattr(mesh, "to_host", lambda tree: every.append(tree) or real(tree))
    play((1, stage("down", "edge", metrics=diverging_never, parties=2)))
    fetched = [tree for tree in every if isinstance(tree, dict) and "a" in tree]
    assert [set(tree) for tree in fetched] == [{"a", "b"}] * ROUNDS
    assert fetched[0]["a"].shape == (2, STEPS)


def test_lines_are_on_the_disk_before_the_checkpoint_that_counts_them(
    play, monkeypatch
):
    events, sync, save = [], writer.sync_metrics, Checkpoints.save

    def synced(run):
        sync(run)
        events.append(len((run.path / "metrics.jsonl").read_text().splitlines()))

    def saved(self, number, state, host):
        events.append(host["lines"])
        save(self, number, state, host)

    monkeypatch.setattr(writer, "sync_metrics", synced)
    monkeypatch.setattr(Checkpoints, "save", saved)
    path = play((1, stage("down", "edge", metrics=diverging_never, parties=2)))
    assert events[0::2] == events[1::2]
    assert events[-1] == len(log(path)) >= ROUNDS


def diverging_never(done, party):
    return {"a": done.astype(jnp.float32), "b": party.astype(jnp.float32)}


def test_a_hop_s_entry_has_teachers_students_curve_and_time(play):
    before = stage("pretrain", "cloud", answers=(0, 0, 1))
    hop = stage("down", "edge", parties=2, answers=(2, 0, 1))
    summary = read(play((0, before), (1, hop)))
    (entry,) = summary["hops"]
    seconds, link = entry.pop("seconds"), entry.pop("link")
    assert link == {}
    assert 0 < seconds["train"] < summary["seconds"]["train"]
    assert 0 < seconds["compile"] < summary["seconds"]["compile"]
    together = {"test": 0.4, "validation": 0.25}
    assert entry.pop("teacher") == pytest.approx({"tier": "cloud", **together})
    assert entry.pop("together") == pytest.approx(together)
    assert entry == pytest.approx(
        {
            "cycle": 1,
            "stage": "down/cloud_edge",
            "tier": "edge",
            "test": 0.4,
            "validation": 0.25,
            "worst_test": 0.4,
            "mean_over_training_validation": 1 / 3,
            "peak_validation": 0.5,
            "last_validation": 0.25,
            "largest_drop_last_half": 0.25,
        }
    )


def test_a_hop_with_several_teachers_tells_what_they_know_together(play):
    def heard(party, images):  # the first party's say class 0, the second's class 1
        return jnp.broadcast_to(jax.nn.one_hot(party, 3)[None], (len(images), 3))

    hop = stage("up", "edge", parties=2, answers=(2, 0, 1), teachers=heard)
    (entry,) = read(play((1, hop)))["hops"]
    expected = {"test": (0.5 + 0.4) / 2, "validation": (0.25 + 0.25) / 2}
    assert entry["together"] == pytest.approx(expected)


def test_devices_of_every_kind_make_one_baseline_and_an_ensemble(play):
    # Four devices, of which 0 and 2 are of the first kind.
    counts = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 2], [1, 1, 1]])
    first = stage("local_only", "end", parties=2, answers=(2, 2, 0), name="train/a")
    second = stage(
        "local_only", "end", parties=2, answers=(0, 0, 2), name="train/b", kind=1
    )
    up = stage("up", "edge", parties=2, answers=(0, 0, 0), ensemble="end")
    path = play((0, first), (0, second), (1, up), counts=counts, kinds=2)
    summary = read(path)
    alone = summary["baselines"]["local_only"]
    energy_j = alone.pop("energy_j")
    # Devices 0 and 2 say class 0, and devices 1 and 3 say class 2.
    expected = {"end": (0.5 + 0.1) / 2, "validation_end": (0.25 + 0.5) / 2}
    own = (1.0 + 0.0 + 0.0 + 1 / 3) / 4
    # Never seen: 1 and 2; 2; 0 and 1; nothing.
    unseen = (0.0 + 1.0 + 0.5) / 3
    # Seen are 5, 9, 1 and 10 test images, and 1, 2, 2 and 4 to choose on.
    seen = {"end_seen": (5 + 1) / 25, "validation_end_seen": (1 + 2) / 9}
    expected |= {"end_own": own, "validation_end_own": own, **seen}
    expected |= {"end_own_worst": 0.0, "validation_end_own_worst": 0.0}
    expected |= {"end_unseen": unseen, "validation_end_unseen": unseen}
    assert alone == pytest.approx(expected)
    # A tie of all classes but one: the first of the largest is class 0.
    assert summary["baselines"]["ensemble_end"] == pytest.approx(
        {"tier": "end", "test": 0.5, "validation": 0.25}
    )
    parties = pd.read_csv(path / "parties.csv")
    rows = parties[parties["phase"] == "local_only"].set_index("party").sort_index()
    assert rows["unseen_accuracy"].fillna(-1).tolist() == [0.0, 1.0, 0.5, -1]
    # The devices go on with these nets, so their training is in the ledger.
    ledger = pd.read_csv(path / "ledger.csv")
    trained = ledger[ledger["phase"] == "local_only"]
    assert trained["stage"].tolist() == ["train/a", "train/b"]
    assert energy_j > 0
    assert trained["energy_j"].sum() == pytest.approx(energy_j)


def test_a_baseline_is_scored_and_costs_the_relay_nothing(play):
    begun = stage("pretrain", "cloud", answers=(1, 1, 1))
    other = stage("baseline", "edge", answers=(0, 0, 2))
    hop = stage("down", "edge", parties=2, answers=(0, 0, 0))
    path = play((0, begun), (0, other), (1, hop))
    summary = read(path)
    assert summary["baselines"] == {
        "kd": pytest.approx({"tier": "edge", "test": 0.1, "validation": 0.5})
    }
    ledger = pd.read_csv(path / "ledger.csv")
    assert "baseline" not in set(ledger["phase"])
    # Nobody keeps the net: the start is what it would be without the baseline.
    phases = summary["phases"]
    assert [(p["cycle"], p["phase"]) for p in phases] == [(1, "start"), (1, "down")]
    assert phases[0]["accuracy"]["edge"] == pytest.approx((0.4 + 0.1) / 2)
    assert [line["stage"] for line in log(path)[3:6]] == ["baseline/kd"] * 3
    assert [hop["stage"] for hop in summary["hops"]] == ["down/cloud_edge"]


@pytest.mark.parametrize("cycle", [0, 1])
def test_every_run_has_a_start_and_one_task_a_cycle(play, cycle):
    only = (
        stage("pretrain", "cloud") if cycle == 0 else stage("down", "edge", parties=2)
    )
    path = play((cycle, only))
    starts = [p for p in read(path)["phases"] if p["phase"] == "start"]
    assert [p["cycle"] for p in starts] == [1]
    ledger = pd.read_csv(path / "ledger.csv")
    tasks = ledger[ledger["phase"] == "inference"]
    assert tasks["cycle"].tolist() == [1, 1, 1]


def test_a_phase_that_comes_again_has_a_name_of_its_own_also_after_a_resume(play):
    def route(**last):
        down = stage("down", "edge", parties=2)
        up = stage("up", "cloud", name="up/edge_cloud")
        again = stage("down", "end", parties=2, name="down/cloud_end", **last)
        return (0, stage("pretrain", "cloud")), (1, down), (1, up), (1, again)

    with pytest.raises(DivergedError):
        play(*route(metrics=diverging))
    path = play(*route())
    assert read(path)["resumed"] == 1
    names = ["start", "down", "up", "down-2"]
    assert [phase["phase"] for phase in read(path)["phases"]] == names
    parties = pd.read_csv(path / "parties.csv")
    assert parties["phase"].unique().tolist() == names
    assert not parties.duplicated(["cycle", "phase", "tier", "party"]).any()


def test_without_private_images_nothing_warns_and_nobody_has_an_own_score(play):
    path = play((0, stage("pretrain", "cloud")), counts=np.zeros((2, 3), np.int64))
    accuracy = read(path)["phases"][0]["accuracy"]
    assert accuracy["end_own"] is None
    assert accuracy["end_unseen"] is None
    assert accuracy["end"] == pytest.approx(0.45)


def test_the_middle_round_of_a_curve_is_of_its_last_half():
    drop = "largest_drop_last_half"
    assert training_curve([0.9, 0.5, 0.6])[drop] == pytest.approx(0.4)
    assert training_curve([0.9, 0.1, 0.7, 0.6])[drop] == pytest.approx(0.3)


def test_inference_comes_once_a_task_also_after_a_start(play):
    path = play((0, stage("pretrain", "cloud")), (1, stage("down", "edge", parties=2)))
    ledger = pd.read_csv(path / "ledger.csv")
    assert ledger[ledger["phase"] == "inference"]["cycle"].tolist() == [1, 1, 1]


def test_flops_before_the_first_round_are_paid_for(tmp_path, monkeypatch):
    def flops(name, **more):
        path = player(tmp_path / name, monkeypatch)(
            (1, stage("down", "edge", parties=2, **more))
        )
        ledger = pd.read_csv(path / "ledger.csv")
        of_edge = (ledger["phase"] == "down") & (ledger["place"] == "edge")
        return ledger[of_edge]["flops"].item()

    assert flops("b", setup_flops=lambda parties: 1e6) == flops("a") + 1e6


class Counting(Clock):
    """Counts a second for each timed block."""

    @contextlib.contextmanager
    def __call__(self, name):
        yield
        setattr(self, name, getattr(self, name) + 1.0)


def test_the_seconds_before_a_stop_count(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "Clock", Counting)
    first, last = (0, stage("pretrain", "cloud")), stage("down", "edge", parties=2)
    straight = player(tmp_path / "a", monkeypatch)(first, (1, last))
    play = player(tmp_path / "b", monkeypatch)
    with pytest.raises(DivergedError):
        play(first, (1, stage("down", "edge", parties=2, metrics=diverging)))
    whole, again = read(straight), read(play(first, (1, last)))
    assert again["resumed"] == 1
    # The stage was begun twice.
    assert again["seconds"]["train"] == whole["seconds"]["train"] + 1
    (one,), (other,) = whole["hops"], again["hops"]
    assert other["seconds"]["train"] == one["seconds"]["train"] + 1
