"""One command's run folder: complete, consistent, and the same for the same seed."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import ecogen_jax
from ecogen_jax import config as configs
from ecogen_jax.data import sources
from ecogen_jax.run.build import build
from ecogen_jax.run.diverged import DivergedError
from ecogen_jax.run.loop import run

STAGES = [
    ("down", "down/cloud_edge", "edge"),
    ("down", "down/edge_end", "end"),
    ("local", "local", "end"),
    ("up", "up/end_edge", "edge"),
    ("up", "up/edge_cloud", "cloud"),
]
START = [("pretrain", "pretrain", "cloud"), ("local_only", "local_only", "end")]
EARLY = ("pretrain", "local_only", "down")
ROUNDS = 2
SIZES = {"cloud": 1, "edge": 2, "end": 4}
TIERS, LINKS = tuple(SIZES), ("cloud_edge", "edge_end")
PERSONAL = ("end_own", "end_own_worst", "end_seen", "end_unseen")
SPEC = "configs/relay_cycle.py:smoke"


def read(path, name):
    return json.loads((path / name).read_text())


def lines(path):
    text = (path / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def summary(finished):
    return read(finished.path, "summary.json")


@pytest.fixture(scope="module")
def config(finished):
    workdir = finished.path.parent.parent
    return configs.load(SPEC, [f"run.workdir={workdir}"])


@pytest.fixture(scope="module")
def ledger(finished):
    return pd.read_csv(finished.path / "ledger.csv")


# The folder.


def test_the_folder_holds_every_file_of_the_contract(finished):
    names = {path.name for path in finished.path.iterdir()} - {".lock"}
    assert names == {
        *("config.json", "manifest.json", "metrics.jsonl", "summary.json"),
        *("parties.csv", "ledger.csv", "partition.npz", "samples.npz"),
        "uncertainty.json",
        *("plots", "report.html", "checkpoints"),
    }
    plots = {path.name for path in (finished.path / "plots").iterdir()}
    assert {"accuracy.png", "samples.png", "energy.png"} <= plots


def test_the_config_is_the_resolved_one(finished, config):
    again = configs.from_dict(read(finished.path, "config.json"))
    assert again.to_dict() == config.to_dict()


def test_the_manifest_says_that_the_data_is_synthetic(finished):
    manifest = read(finished.path, "manifest.json")
    assert manifest["synthetic_data"] is True
    assert manifest["seed"] == 0
    assert manifest["command"].startswith("python scripts/train.py --config configs/")
    assert manifest["versions"]["jax"]
    assert "SYNTHETIC" in finished.printed


def test_the_partition_is_that_of_the_label_counts(finished):
    partition = np.load(finished.path / "partition.npz")
    labels = sources.load("fake").train_labels[partition["private_train"]]
    parts = np.split(partition["client_positions"], partition["client_offsets"][1:-1])
    counts = [np.bincount(labels[part], minlength=10) for part in parts]
    np.testing.assert_array_equal(partition["label_counts"], counts)


def test_samples_are_kept_of_every_hop(finished):
    samples = np.load(finished.path / "samples.npz")
    hops = [name for _, name, _ in STAGES if "/" in name]
    assert set(samples) == {f"{cycle}/{hop}" for cycle in (1, 2) for hop in hops}
    for images in samples.values():
        assert images.dtype == np.uint8
        assert images.shape[1:] == (28, 28, 1)
        assert 0 < len(images) <= 40


# The summary.


def test_the_summary_has_the_keys_of_the_contract(summary, config):
    assert set(summary) == {
        *("experiment", "seed", "dataset", "synthetic_data", "phases", "baselines"),
        *("hops", "ledger", "seconds", "raw_samples_on_links", "resumed"),
        *("image_shape", "num_classes", "total", "sci", "privacy", "host_energy"),
    }
    assert summary["experiment"] == config.experiment == "relay_cycle_smoke"
    assert (summary["dataset"], summary["synthetic_data"]) == ("fake", True)
    assert (summary["raw_samples_on_links"], summary["resumed"]) == (0, 0)
    assert set(summary["seconds"]) == {"compile", "train", "evaluate"}
    assert all(seconds > 0 for seconds in summary["seconds"].values())


def test_phases_stand_in_order_with_the_accuracy_of_every_tier(summary):
    order = [(phase["cycle"], phase["phase"]) for phase in summary["phases"]]
    assert order == [
        (cycle, phase) for cycle in (1, 2) for phase in ("start", "down", "local", "up")
    ]
    for phase in summary["phases"]:
        for split in ("accuracy", "validation_accuracy"):
            assert set(phase[split]) == {*TIERS, *PERSONAL}
            known = {name: v for name, v in phase[split].items() if v is not None}
            assert all(0 <= value <= 1 for value in known.values())
            assert set(phase[split]) - set(known) <= {"end_unseen"}
    assert {"end", *PERSONAL} <= set(summary["baselines"]["local_only"])


def test_every_hop_has_its_entry_with_the_accuracies_of_its_phase(summary, finished):
    hops = {(hop["cycle"], hop["stage"]): hop for hop in summary["hops"]}
    phases = {(p["cycle"], p["phase"]): p for p in summary["phases"]}
    named = [name for _, name, _ in STAGES if "/" in name]
    assert list(hops) == [(cycle, name) for cycle in (1, 2) for name in named]
    for (cycle, name), hop in hops.items():
        phase = phases[cycle, name.partition("/")[0]]
        scores = phase["accuracy"], phase["validation_accuracy"]
        # A phase has one hop to each tier, so what it ends with is the hop's.
        got = hop["test"], hop["validation"]
        assert got == pytest.approx(tuple(one[hop["tier"]] for one in scores))
        teacher = hop["teacher"]
        got = teacher["test"], teacher["validation"]
        assert got == pytest.approx(tuple(one[teacher["tier"]] for one in scores))
        curve = [
            line[f"{hop['tier']}/validation_accuracy"]
            for line in lines(finished.path)
            if (line["cycle"], line["stage"]) == (cycle, name) and "round" in line
        ]
        assert hop["last_validation"] == curve[-1]
        assert hop["peak_validation"] == max(curve)
    seconds = summary["seconds"]
    for name in ("train", "compile"):
        assert 0 < sum(hop["seconds"][name] for hop in hops.values()) < seconds[name]


def test_the_bytes_of_the_hops_are_those_of_the_ledger(summary):
    for link in LINKS:
        for direction in ("up_bytes", "down_bytes"):
            sent = [hop["link"].get(link, {direction: 0}) for hop in summary["hops"]]
            total = sum(messages[direction] for messages in sent)
            assert total == summary["ledger"]["link"][link][direction] > 0


def test_a_phase_moves_the_tiers_it_trains_and_no_other(summary):
    accuracy = [phase["accuracy"] for phase in summary["phases"]]
    start, down, local, up = accuracy[:4]
    assert down["cloud"] == start["cloud"]
    assert (local["cloud"], local["edge"]) == (down["cloud"], down["edge"])
    for name in ("end", *PERSONAL):
        assert up[name] == local[name]
    # Nobody works between two cycles.
    assert accuracy[4] == up


def test_phases_are_the_means_over_the_rows_of_the_parties(summary, finished):
    parties = pd.read_csv(finished.path / "parties.csv")
    own = parties.filter(like="_accuracy")
    assert own[parties["tier"] != "end"].isna().all(axis=None)
    for phase in summary["phases"]:
        rows = parties[
            (parties["cycle"] == phase["cycle"]) & (parties["phase"] == phase["phase"])
        ]
        assert rows.groupby("tier").size().to_dict() == SIZES
        for tier, mean in rows.groupby("tier")["accuracy"].mean().items():
            assert mean == pytest.approx(phase["accuracy"][tier])
        for name in ("own", "unseen"):
            mean = rows[f"{name}_accuracy"].mean()
            expected = np.array(phase["accuracy"][f"end_{name}"], float)  # NaN for None
            assert mean == pytest.approx(expected, nan_ok=True)
        right = (rows["seen_accuracy"] * rows["seen_images"]).sum()
        seen, worst = right / rows["seen_images"].sum(), rows["own_accuracy"].min()
        found = {name: phase["accuracy"][name] for name in PERSONAL[1:3]}
        assert found == pytest.approx({"end_own_worst": worst, "end_seen": seen})


# The ledger.


@pytest.mark.parametrize("place", [*TIERS, *LINKS])
def test_the_summary_s_ledger_is_the_sum_of_its_entries(summary, ledger, place):
    costs = summary["ledger"]
    cost = costs[place] if place in TIERS else costs["link"][place]
    rows = ledger[ledger["place"] == place]
    for name, value in cost.items():
        if name != "kind":
            assert rows[name].sum() == pytest.approx(value), name
    assert cost["energy_j"] > 0
    assert set(rows["kind"]) == {cost["kind"]} == {"modelled"}


def test_hops_send_both_ways_and_nothing_else_does(ledger):
    sent = ledger[(ledger["up_bytes"] > 0) | (ledger["down_bytes"] > 0)]
    found = {
        (row.stage, row.place, row.up_bytes > 0, row.down_bytes > 0)
        for row in sent.itertuples()
    }
    assert found == {
        ("down/cloud_edge", "cloud_edge", False, True),
        ("down/edge_end", "edge_end", False, True),
        ("up/end_edge", "edge_end", True, False),
        ("up/edge_cloud", "cloud_edge", True, False),
    }
    # Both cycles send the same nets.
    per_cycle = sent.groupby("cycle")[["up_bytes", "down_bytes"]].sum()
    assert per_cycle.loc[1].to_dict() == per_cycle.loc[2].to_dict()


def test_every_stage_costs_its_tier_flops_except_the_baseline(ledger):
    work = ledger[ledger["flops"] > 0]
    found = {(row.cycle, row.stage, row.place) for row in work.itertuples()}
    workers = {"down/cloud_edge": "cloud", "down/edge_end": "edge", "local": "end"}
    workers |= {"up/end_edge": "edge", "up/edge_cloud": "cloud"}
    expected = {(0, "pretrain", "cloud")}
    for cycle in (1, 2):
        expected |= {(cycle, stage, tier) for stage, tier in workers.items()}
        expected |= {(cycle, "inference", tier) for tier in TIERS}
    assert found == expected


# The log.


def test_the_log_has_a_line_a_round_and_one_a_message(finished):
    records = lines(finished.path)
    expected = []
    plan = [(0, *stage) for stage in START]
    plan += [(cycle, *stage) for cycle in (1, 2) for stage in STAGES]
    for cycle, phase, stage, _ in plan:
        rounds = [(cycle, phase, stage, number) for number in range(1, ROUNDS + 1)]
        expected += rounds
        if "/" in stage:
            expected.append((cycle, phase, stage, "messages"))
    assert expected == [
        (r["cycle"], r["phase"], r["stage"], r.get("event", r.get("round")))
        for r in records
    ]


def test_values_of_the_log_are_named_by_place_and_quantity(finished, ledger):
    plain = {"cycle", "phase", "stage", "round", "rounds", "event", "link"}
    for record in lines(finished.path):
        for name in set(record) - plain:
            place, _, quantity = name.partition("/")
            assert place in (*TIERS, "link")
            assert quantity
            assert np.isfinite(record[name])
    students = {
        name: f"{student}/validation_accuracy" for _, name, student in START + STAGES
    }
    for record in lines(finished.path):
        if "round" in record:
            assert 0 <= record[students[record["stage"]]] <= 1


def test_logged_messages_are_those_of_the_ledger(finished, summary):
    sums = dict.fromkeys(LINKS, 0)
    for record in lines(finished.path):
        if "event" in record:
            sums[record["link"]] += record["link/up_bytes"] + record["link/down_bytes"]
    for link, total in sums.items():
        cost = summary["ledger"]["link"][link]
        assert total == cost["up_bytes"] + cost["down_bytes"]


# Reading it back, and running it again.


def test_a_loaded_run_answers_as_its_summary_says(finished, summary, config):
    loaded = ecogen_jax.load_run(finished.path)
    assert loaded.summary == summary
    assert loaded.config.to_dict() == config.to_dict()
    dataset = sources.load("fake")
    images = jnp.asarray(dataset.test_images / 255, jnp.float32)
    last = summary["phases"][-1]["accuracy"]
    for tier, parties in SIZES.items():
        (net,), scores = loaded.nets.of_tier(tier), []
        for party in range(parties):
            (together,) = loaded.parties.of_tier(tier)
            one = jax.tree.map(lambda a, i=party: jnp.asarray(a[i]), together)
            logits = net.apply(one, images, train=False).value
            scores.append(np.mean(np.argmax(logits, axis=1) == dataset.test_labels))
        assert np.mean(scores) == pytest.approx(last[tier], abs=1e-6)


def numbers(path):
    """All of a summary that a seed decides."""
    summary = read(path, "summary.json")
    for name in ("seconds", "resumed", "host_energy"):
        del summary[name]
    for hop in summary["hops"]:
        del hop["seconds"]
    ledger = summary["ledger"]
    for cost in (*(ledger[tier] for tier in TIERS), *ledger["link"].values()):
        del cost["host_s"]
    return summary


def test_the_seed_decides_partition_and_first_parameters():
    def drawn(seed):
        experiment = build(configs.load(SPEC, [f"seed={seed}"]))
        bias = experiment.parties.end[0].params["classifier"]["kernel"]
        return experiment.label_counts, np.asarray(bias)

    first, again, other = drawn(0), drawn(0), drawn(1)
    for one, same, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, different)


def again(workdir, *overrides):
    """Runs the smoke once more, in a process of its own; returns the folder."""
    words = [f"--config.{word}" for word in (f"run.workdir={workdir}", *overrides)]
    subprocess.run(
        [sys.executable, "scripts/train.py", "--config", SPEC, *words],
        check=True,
        capture_output=True,
    )
    (path,) = workdir.glob("*/*")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_gives_the_same_numbers_and_another_does_not(
    finished, tmp_path, seed
):
    path = again(tmp_path, f"seed={seed}")
    assert (numbers(path) == numbers(finished.path)) == (seed == 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "num_devices"), [("shard_map", 1), ("vmap", 2), ("loop", 1)]
)
def test_every_mapping_gives_the_same_run(finished, tmp_path, backend, num_devices):
    mapping = [f"mesh.backend={backend}", f"mesh.num_devices={num_devices}"]
    path = again(tmp_path, *mapping, "protocol.cycles=1")
    # Training makes ten times more of a difference in rounding with every stage, so
    # the numbers of the first three stages say whether the mapping is right.
    early = [
        [r for r in lines(p) if r["phase"] in EARLY] for p in (finished.path, path)
    ]
    expected, got = ([r for r in some if r["cycle"] <= 1] for some in early)
    assert len(got) == len(expected) == 10
    for record, wanted in zip(got, expected, strict=True):
        values, expected_values = (
            {name: value for name, value in line.items() if "/" in name}
            for line in (record, wanted)
        )
        assert values == pytest.approx(expected_values, rel=2e-5)
    for number in range(2):
        accuracy, wanted = (
            read(p, "summary.json")["phases"][number]["accuracy"]
            for p in (path, finished.path)
        )
        assert accuracy == pytest.approx(wanted, abs=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_place(tmp_path):
    overrides = [f"run.workdir={tmp_path}", "pretrain.learning_rate=1e38"]
    with pytest.raises(
        DivergedError, match=r"stage pretrain, round 1, step \d, .*rates"
    ):
        run(configs.load(SPEC, overrides))
    (path,) = (tmp_path / "relay_cycle_smoke").iterdir()
    assert not (path / "summary.json").exists()
