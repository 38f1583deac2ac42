"""The tables of data-free hops: computed verdicts, and runs that share their starts."""

import io
import math
import os

import pandas as pd
import pytest
from rich.console import Console

from ecogen_jax import config as configs
from ecogen_jax.report import bars
from papers_repro import hops
from papers_repro.dfkd import calibrate, experiments, reproduce, table
from papers_repro.dfkd.experiments import EXPERIMENTS
from papers_repro.dfkd.table import PAPER
from tests.hop_folders import assert_can_start, made
from tests.stand_in_runs import EVERYTHING, stand_in


def row(found, id):
    return table.judged(id.partition(".")[0], found).set_index("id").loc[id]


def test_the_verdicts_of_a1_are_computed(tmp_path):
    found = made(tmp_path, "A1", {0: 0.982, 1: 0.986, 2: 0.984})
    bar = row(found, "A1.dafl")
    assert (bar["ours_mean"], bar["ours_worst"], bar["seeds"]) == (98.4, 98.2, "0 1 2")
    assert (bar["verdict"], bar["bar"], bar["aim"]) == ("met", 98.2, 98.6)
    assert bar["deviation"] == pytest.approx(98.4 / 98.2 - 1)
    spread = row(found, "A1.spread")
    assert (spread["ours_std"], spread["verdict"]) == (pytest.approx(0.2), "missed")
    # 2 degrees of freedom: chi-square is exponential, its quantiles -2 ln(1 - p).
    assert spread["low"] == pytest.approx(0.2 / math.sqrt(-math.log(0.025)))
    assert spread["high"] == pytest.approx(0.2 / math.sqrt(-math.log(0.975)))
    assert row(found, "A1.seconds")["verdict"] == "met"
    beside = made(tmp_path, "A.baselines", {0: 0.98})
    assert row(found + beside, "A1.kd_usps")["ours_mean"] == 90
    assert row(found, "A2.accuracy")["verdict"] == "not run"


def test_the_spread_of_one_seed_is_no_verdict(tmp_path):
    assert row(made(tmp_path, "A1", {0: 0.99}), "A1.spread")["verdict"] == "not run"


def test_a_mean_at_its_bar_meets_it(tmp_path):
    found = made(tmp_path, "A1", {0: 0.982, 1: 0.982})
    assert row(found, "A1.dafl")["verdict"] == "met"


@pytest.mark.parametrize(("drop", "verdict"), [(0.005, "met"), (0.0051, "missed")])
def test_the_largest_drop_counts_on_every_seed(tmp_path, drop, verdict):
    found = made(tmp_path, "A1", {0: 0.98, 1: 0.98})
    found[1].summary["hops"][-1]["largest_drop_last_half"] = drop
    bar = row(found, "A3.drop")
    assert (bar["verdict"], bar["ours_worst"]) == (verdict, pytest.approx(100 * drop))


def test_curves_are_printed_beside_what_a_hop_taught(tmp_path):
    found = made(tmp_path, "A1", {0: 0.981, 1: 0.983})
    bar = row(found, "A1.dafl")
    assert (bar["mean_over_training"], bar["peak"], bar["last"]) == (90, 98.5, 98.2)
    assert math.isnan(row(found, "A1.teacher")["peak"])


def test_a_paired_difference_has_the_interval_of_its_seeds(tmp_path):
    found = made(tmp_path, "D1", {0: 0.97, 1: 0.98, 2: 0.99, 3: 0.5})
    found += made(tmp_path, "D1.direct", {0: 0.98, 1: 0.98, 2: 0.98, 4: 0.1})
    bar = row(found, "D1.minus_direct")
    assert bar["seeds"] == "0 1 2"  # those that both have
    assert bar["ours_mean"] == pytest.approx(0, abs=1e-9)
    # Differences -1, 0, 1: t(0.975, 2) / sqrt(3).
    assert bar["high"] == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert bar["low"] == -bar["high"]
    assert (bar["ours_worst"], bar["verdict"], bar["aim"]) == (-1, "met", -0.3)


@pytest.mark.parametrize(("relay", "verdict"), [(0.97, "met"), (0.9699, "missed")])
def test_one_point_below_direct_is_allowed(tmp_path, relay, verdict):
    found = made(tmp_path, "D1", {0: relay}) + made(tmp_path, "D1.direct", {0: 0.98})
    bar = row(found, "D1.minus_direct")
    assert bar["verdict"] == verdict
    assert pd.isna(bar["low"])  # one seed has no interval


def test_bytes_at_the_cloud_are_a_ratio(tmp_path):
    found = made(tmp_path, "D2", {0: 0.8}) + made(tmp_path, "D2.flat", {0: 0.8})
    found[0].summary["ledger"]["link"]["cloud_edge"]["up_bytes"] = 300_000
    bar = row(found, "D2.bytes_ratio")
    assert (bar["ours_mean"], bar["aim"]) == (0.25, 0.5)
    assert row(found, "D2.minus_flat")["verdict"] == "met"


def test_unseen_classes_are_set_against_training_alone(tmp_path):
    accuracy = {"cloud": 0.8, "edge": 0.8, "end": 0.7, "end_own": 0.8}
    phases = [{"cycle": 1, "phase": "down", "accuracy": accuracy | {"end_unseen": 0.3}}]
    bar = row(made(tmp_path, "D3", {0: 0.7}, phases=phases), "D3.unseen")
    assert (bar["ours_mean"], bar["verdict"]) == (30, "met")


def fashion(tmp_path, **accuracies):
    return [
        run
        for name, test in accuracies.items()
        for run in made(tmp_path, f"A4.{name}", {0: test}, dataset="fashion_mnist")
    ]


@pytest.mark.parametrize(("cmi", "verdict"), [(0.85, "missed"), (0.84, "met")])
def test_ours_is_set_against_the_best_of_the_others(tmp_path, cmi, verdict):
    bar = row(fashion(tmp_path, relay=0.845, dafl=0.7, cmi=cmi), "A4.first")
    assert (bar["against"], bar["verdict"]) == ("- A4.cmi", verdict)
    assert bar["ours_mean"] == pytest.approx(84.5 - 100 * cmi)


def test_the_larger_budget_goes_to_the_best_on_validation(tmp_path):
    tuned, refined = tmp_path / "tuned.csv", tmp_path / "refined.csv"
    columns = "method,change,validation,chosen\n"
    rows = ("relay,r=1,90,True", "dafl,r=1,80,False", "dafl,r=2,70.5,True")
    rows += ("cmi,r=1,70,True", "zskt,r=1,71,True")
    tuned.write_text(columns + "\n".join(rows))
    best = ["A4.long.relay", "A4.long.zskt", "A4.long.dafl"]
    assert table.best_three(tuned, refined) == best
    columns = "method,change,rounds,validation,chosen\n"
    rows = ("cmi,,all,70.2,False", "cmi,s=1,all,70.9,True", "cmi,s=1,part,90,False")
    refined.write_text(columns + "\n".join(rows))
    best = ["A4.long.relay", "A4.long.zskt", "A4.long.cmi"]
    assert table.best_three(tuned, refined) == best


def test_the_larger_budget_is_listed_for_those_that_had_it(tmp_path):
    found = fashion(tmp_path, **{"long.relay": 0.8, "long.cmi": 0.7})
    ids = set(table.judged("A4", found)["id"])
    assert {"A4.long.relay", "A4.long.cmi", "A4.long.first", "A4.dafl"} <= ids
    assert "A4.long.dafl" not in ids


def test_a_smoke_is_judged_under_its_own_names(tmp_path):
    found = made(tmp_path, "D1_smoke", {0: 0.2}, dataset="fake")
    found += made(tmp_path, "D1.direct_smoke", {0: 0.1}, dataset="fake")
    bars_ = table.judged("D1", found, smoke=True).set_index("id")
    assert bars_.loc["D1.minus_direct", "ours_mean"] == pytest.approx(10)
    assert (table.judged("D1", found)["verdict"] == "not run").all()


def test_markdown_names_command_commit_and_what_was_not_run(tmp_path):
    found = made(tmp_path / "runs", "D1", {0: 0.97, 3: 0.97})
    judged = {"D1": table.judged("D1", found)}
    text = PAPER.write(judged, tmp_path / "tables").read_text()
    assert "Not run: D1 seeds 1 2 4, D1.direct seeds 0 1 2 3 4." in text
    assert "`python -m papers_repro.dfkd.reproduce --only D1`; commit: 0123456" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| D1.relay ")]
    assert "| 97.00 | 0.00 | 97.00 |" in line
    # Another table joins those that are there.
    other = {"A2": table.judged("A2", [])}
    assert "D1.relay" in PAPER.write(other, tmp_path / "tables").read_text()


def test_markdown_names_the_bars_that_too_few_seeds_were_held_against(tmp_path):
    found = made(tmp_path / "runs", "A2", {0: 0.97, 3: 0.97})
    text = PAPER.write({"A2": table.judged("A2", found)}, tmp_path / "two").read_text()
    assert "Fewer than 3 seeds, so no claim: A2.accuracy, A2.seconds." in text
    found = made(tmp_path / "runs", "A2", {1: 0.97})
    more = PAPER.write({"A2": table.judged("A2", found)}, tmp_path / "three")
    assert "no claim" not in more.read_text()


def test_the_columns_are_those_of_every_table():
    for name in PAPER.bars:
        frame = table.judged(name, [])
        assert list(frame) == [*bars.COLUMNS, *bars.PAIRED, *table.CURVE]


def test_a_claim_has_a_value_or_the_reason_why_not():
    claims = PAPER.claims
    assert (claims["published"].isna() == claims["reason"].notna()).all()
    assert claims[["quantity", "unit", "source", "standing"]].notna().all(axis=None)


def test_only_takes_ids_and_their_first_parts():
    ids = set(PAPER.chosen(["A2", "ablation.cold"])["id"])
    assert {"A2.accuracy", "ablation.cold.minus_whole"} <= ids
    assert not any(id.startswith(("ablation.no", "A1")) for id in ids)
    with pytest.raises(ValueError, match=r"no bar is called 'A9'; there are A1, A2"):
        PAPER.chosen(["A9"])


@pytest.mark.parametrize("id", EXPERIMENTS)
def test_an_experiment_can_start_from_its_start(id):
    assert_can_start(EXPERIMENTS[id], EXPERIMENTS, loaded)


def loaded(one, smoke=False):
    made = experiments.cell(one, 0, workdir="runs", smoke=smoke, **EVERYTHING)
    return configs.load(*made)


@pytest.mark.parametrize("id", [id for id, one in EXPERIMENTS.items() if one.in_smoke])
def test_an_experiment_has_a_smoke(id):
    config = loaded(EXPERIMENTS[id], smoke=True)
    assert (config.experiment, config.data.name) == (f"{id}_smoke", "fake")
    assert config.down_cloud_edge.rounds == 2


def test_the_run_with_the_baselines_is_that_of_a1():
    with_baselines, alone = (
        configs.load(f"configs/hops/{name}.py").to_dict()
        for name in ("baselines", "a1")
    )
    for config in (with_baselines, alone):
        config.pop("experiment")
        config["protocol"].pop("baselines")
    assert with_baselines == alone


def test_jobs_hold_what_they_start_from_first_and_nothing_else():
    jobs = hops.jobs(["A4.dafl"], EXPERIMENTS, smoke=False)
    assert [job.name for job in jobs] == [
        "teacher.fashion_mnist seed 0",
        "A4.dafl seed 0",
    ]
    smoke = hops.jobs(["D1", "D1.direct"], EXPERIMENTS, smoke=True)
    assert [job.name for job in smoke] == [
        "teacher.mnist seed 0",
        "D1 seed 0",
        "D1.direct seed 0",
    ]


def test_what_needs_a_gpu_is_made_only_if_it_is_named(monkeypatch):
    made, console = [], Console(record=True, width=200)
    monkeypatch.setattr(
        reproduce.harness, "make", lambda todo, *_: made.append(todo) or []
    )
    settings = reproduce.Settings("runs", smoke=False, budgets={}, tuned={})
    for only in ([], ["cifar10"]):
        assert reproduce.run(only, settings, 1, console) == []
    everything, named = [{job.experiment for job in todo} for todo in made]
    assert named == {"cifar10"}
    assert {"A1", "D2", "ablation.cold"} < everything
    assert "cifar10" not in everything
    assert "needs a GPU: cifar10 (--only cifar10 makes it)" in console.export_text()


def test_a_budget_sets_rounds_steps_and_setting_but_not_in_a_smoke():
    one = EXPERIMENTS["A4.relay"]
    hop = loaded(one).down_cloud_edge
    assert (hop.rounds, hop.steps, hop.learning_rate) == (7, 40, 4e-3)
    nothing = {"budgets": {}, "tuned": {}}
    smoke = experiments.cell(one, 0, workdir="runs", smoke=True, **nothing)
    assert configs.load(*smoke).down_cloud_edge.rounds == 2
    with pytest.raises(ValueError, match=r"A4.relay has no budget in budgets.csv"):
        experiments.cell(one, 0, workdir="runs", **nothing)
    with pytest.raises(ValueError, match=r"no setting in tuned.csv; run with --tune"):
        experiments.cell(one, 0, workdir="runs", **EVERYTHING | {"tuned": {}})


@pytest.mark.parametrize(
    ("step_s", "short", "long"),
    [
        (0.125, (90, 16), (300, 16)),  # 16 steps a round, as the config says
        (2.0, (10, 9), (18, 16)),  # a slow one has shorter rounds, and enough of them
        (50.0, (3, 1), (12, 1)),  # unless a single step is longer
    ],
)
def test_equal_seconds_are_rounds_by_measured_speed(
    tmp_path, monkeypatch, step_s, short, long
):
    monkeypatch.setattr(calibrate, "seconds_per_step", lambda one, change: step_s)
    monkeypatch.setattr(calibrate.mesh, "start", lambda num_devices: None)
    calibrate.calibrate([EXPERIMENTS["A4.relay"]], {}, tmp_path / "budgets.csv")
    budgets = experiments.read_budgets(tmp_path / "budgets.csv")
    for seconds, (rounds, steps) in ((180.0, short), (600.0, long)):
        budget = budgets["relay", seconds]
        assert (budget.rounds, budget.steps) == (rounds, steps)
        assert budget.rounds * budget.seconds_per_round <= seconds


def test_budgets_are_of_the_settings_that_were_chosen(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        calibrate, "seconds_per_step", lambda one, change: seen.append(change) or 1.0
    )
    monkeypatch.setattr(calibrate.mesh, "start", lambda num_devices: None)
    path, tuned = tmp_path / "budgets.csv", {"relay": "steps=30 temperature=9"}
    pair = [EXPERIMENTS[f"A4.{name}"] for name in ("relay", "dafl")]
    calibrate.calibrate(pair, tuned, path)
    assert seen == ["steps=30 temperature=9", ""]
    # Chosen steps stand, also where they leave few rounds; no run would take others.
    budget = experiments.read_budgets(path)["relay", 180.0]
    assert (budget.rounds, budget.steps) == (6, 30)
    one = EXPERIMENTS["A4.relay"]
    made = {"budgets": experiments.read_budgets(path), "tuned": tuned}
    cell = experiments.cell(one, 0, workdir="runs", **made)
    hop = configs.load(cell.spec, cell.overrides).down_cloud_edge
    assert (hop.rounds, hop.steps, hop.temperature) == (6, 30, 9.0)


def test_the_timed_program_has_the_settings_that_were_chosen(monkeypatch):
    found = []
    monkeypatch.setattr(
        calibrate, "_round_seconds", lambda config: found.append(config) or [3.0]
    )
    change = "steps=30 student_steps=7"
    step_s = calibrate.seconds_per_step(EXPERIMENTS["A4.relay"], change)
    (config,) = found
    assert config.down_cloud_edge.student_steps == 7
    assert config.down_cloud_edge.steps * step_s == 3.0


def test_budgets_stay_as_they_are_until_new_ones_are_whole(monkeypatch, tmp_path):
    def stopped(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr(calibrate, "seconds_per_step", lambda one, change: 0.1)
    monkeypatch.setattr(calibrate.mesh, "start", lambda num_devices: None)
    monkeypatch.setattr(os, "replace", stopped)
    path = tmp_path / "budgets.csv"
    path.write_text("those before")
    with pytest.raises(KeyboardInterrupt):
        calibrate.calibrate([EXPERIMENTS["A4.relay"]], {}, path)
    assert path.read_text() == "those before"


def test_a_step_longer_than_a_budget_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(calibrate, "seconds_per_step", lambda one, change: 200.0)
    monkeypatch.setattr(calibrate.mesh, "start", lambda num_devices: None)
    with pytest.raises(ValueError, match=r"a step of relay takes 200 s, more .*lower"):
        calibrate.calibrate([EXPERIMENTS["A4.relay"]], {}, tmp_path / "budgets.csv")


def test_runs_start_from_runs_and_go_on_where_they_stopped(tmp_path, monkeypatch):
    few = {id: EXPERIMENTS[id]._replace(seeds=(0, 1)) for id in ("teacher.mnist", "A2")}
    stand_in(tmp_path, monkeypatch)
    monkeypatch.setattr(reproduce, "EXPERIMENTS", few)
    settings = reproduce.Settings("runs", smoke=False, budgets={}, tuned={})
    for lines in (3, 0):
        console = Console(record=True, file=io.StringIO())
        failed = reproduce.run(["A2"], settings, 2, console)
        assert failed == ["A2 seed 1: see runs/logs/A2-seed1.log"]
        assert console.export_text().count(" s  ") == lines
    assert "broken on purpose" in (tmp_path / "runs/logs/A2-seed1.log").read_text()
    folders = sorted(
        path.parent.parent.name for path in tmp_path.glob("runs/*/*/summary.json")
    )
    assert folders == ["A2", "teacher.mnist", "teacher.mnist"]


def test_the_command_refuses_an_unknown_bar_and_an_empty_folder(tmp_path, capsys):
    for words, message in (
        (["--only", "A9"], "no bar is called 'A9'"),
        (["--table", "--workdir", str(tmp_path)], "no finished run in"),
    ):
        with pytest.raises(SystemExit):
            reproduce.main(words)
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_smoke_of_two_experiments_prints_their_tables(capsys):
    assert reproduce.main(["--smoke", "--only", "A2,D2"]) == 0
    printed = capsys.readouterr().out
    assert "D2.minus_flat" in printed
    assert "A2.accuracy" in printed
    assert "not run" not in printed
