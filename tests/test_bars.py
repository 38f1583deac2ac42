import math
import pathlib

import pandas as pd
import pytest

from ecogen_jax.report import bars, runs, tables, verdicts
from tests.run_folders import make_run, summary

ROOT = pathlib.Path(__file__).resolve().parent.parent
BARS = sorted((ROOT / "papers_repro").glob("*/bars.csv"))
BAR = {
    "id": "A",
    "experiment": "relay_cycle",
    "dataset": "mnist",
    "expression": "seconds.train",
    "direction": "<=",
    "bar": 240,
    "judged": "mean",
    "aim": math.nan,
    "quantity": "training time, in seconds",
    "unit": "s",
}


def frame(*changes):
    return pd.DataFrame([{**BAR, **change} for change in changes])


def found(workdir, seconds=(100.0,), **kwargs):
    """One run a seed, whose `seconds.train` is given."""
    for seed, train in enumerate(seconds):
        make_run(workdir, seed=seed, seconds={"train": train}, **kwargs)
    return [runs.read(path) for path in runs.find([workdir])]


def judged(workdir, seconds, **change):
    (row,) = verdicts.judge(frame(change), found(workdir, seconds)).to_dict("records")
    return row


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("phases.1.accuracy.edge", 0.955),
        ("accuracy.down_1.edge / accuracy.start.cloud", 0.955 / 0.98),
        ("accuracy.local_1.end - baselines.local_only.end", 0.86 - 0.56),
        ("seconds.compile + seconds.train + seconds.evaluate", 177.45),
        ("ledger.link.cloud_edge.up_bytes", 1_200_000),
        ("hops.0.teacher.test - hops.0.test", 0.989 - 0.9812),
        ("hops.-1.largest_drop_last_half", 0.0034),
        ("baselines.ensemble_end.test", 0.9),
    ],
)
def test_an_expression_is_a_path_or_paths_with_one_sign(tmp_path, expression, value):
    assert verdicts.evaluate(expression, runs.read(make_run(tmp_path))) == (
        pytest.approx(value)
    )


def test_the_second_phase_of_a_direction_has_its_own_path(tmp_path):
    phases = [
        {"cycle": 1, "phase": name, "accuracy": {"end": accuracy}}
        for name, accuracy in (("down", 0.9), ("up", 0.8), ("down-2", 0.7))
    ]
    run = runs.read(make_run(tmp_path, phases=phases))
    difference = verdicts.evaluate("accuracy.down_1.end - accuracy.down-2_1.end", run)
    assert difference == pytest.approx(0.2)


def test_the_start_is_the_first_cycles(tmp_path):
    phases = [
        {"cycle": cycle, "phase": "start", "accuracy": {"cloud": accuracy}}
        for cycle, accuracy in ((1, 0.9), (2, 0.8))
    ]
    run = runs.read(make_run(tmp_path, phases=phases))
    assert verdicts.evaluate("accuracy.start.cloud", run) == 0.9


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("seconds.train -", "is not a path"),
        ("seconds.train - seconds.compile / seed", "joined by one of"),
        ("seconds.train * seed", "joined by one of"),
        ("accuracy.down_3.edge", "no 'down_3'; there are start, down_1"),
        ("dataset", "is 'mnist' in .*summary.json, not a number"),
        ("seconds.train / seed", "divides by seed, which is 0 in .*summary.json"),
    ],
)
def test_a_wrong_expression_says_what_is_wrong(tmp_path, expression, message):
    with pytest.raises(ValueError, match=message):
        verdicts.evaluate(expression, runs.read(make_run(tmp_path)))


def test_mean_spread_and_worst_are_over_seeds(tmp_path):
    row = judged(tmp_path, (200.0, 260.0, 230.0))
    assert (row["ours_mean"], row["ours_std"], row["ours_worst"]) == (230, 30, 260)
    assert row["seeds"] == "0 1 2"


@pytest.mark.parametrize(
    ("change", "worst", "verdict"),
    [
        ({"direction": "<="}, 260, "met"),
        ({"direction": "<=", "judged": "worst"}, 260, "missed"),
        ({"direction": ">="}, 200, "missed"),
        ({"direction": ">=", "bar": 200, "judged": "worst"}, 200, "met"),
        ({"direction": "=", "bar": 230}, 200, "met"),
        ({"direction": "=", "bar": 230, "judged": "worst"}, 200, "missed"),
        ({"bar": math.nan}, 260, "no bar"),
        ({"dataset": "usps"}, None, "not run"),
        ({"experiment": "other"}, None, "not run"),
    ],
)
def test_the_verdict_is_computed(tmp_path, change, worst, verdict):
    row = judged(tmp_path, (200.0, 260.0, 230.0), **change)
    assert row["verdict"] == verdict
    if worst is None:
        assert math.isnan(row["ours_worst"])
    else:
        assert row["ours_worst"] == worst


def test_a_table_has_the_columns_of_every_table_and_blanks(tmp_path):
    table = verdicts.judge(frame({}), found(tmp_path))
    assert tuple(table) == bars.COLUMNS
    assert table[["published", "locator", "deviation", "sort"]].isna().all(axis=None)
    assert math.isnan(table["ours_std"].iloc[0])  # one seed has no spread


def test_commands_lose_seed_machine_and_repetition(tmp_path):
    made = found(tmp_path, (1.0, 2.0))
    words = "--config configs/x.py --config.data.alpha=0.1 --config.run.workdir=away"
    for run in made:
        seed = f"--config.seed={run.summary['seed']}"
        run.manifest["command"] = f"python /home/a/scripts/train.py {words} {seed}"
    table = verdicts.judge(frame({}), made)
    assert table["command"].tolist() == [
        "python scripts/train.py --config configs/x.py --config.data.alpha=0.1"
    ]


def test_commits_are_all_named_and_say_whether_they_are_dirty(tmp_path):
    made = found(tmp_path, (1.0, 2.0, 3.0))
    made[1].manifest.update(git_commit="abc", git_dirty=False)
    made[2].manifest.update(git_commit=None, git_dirty=None)
    (commits,) = verdicts.judge(frame({}), made)["commit"]
    dirty = "0123456789abcdef0123456789abcdef01234567-dirty"
    assert commits == f"{dirty} abc unknown"


def test_each_seed_may_start_from_a_run_of_its_own(tmp_path):
    made = found(tmp_path, (1.0, 2.0))
    for run in made:
        run.config["protocol"] = {"start_from": f"teacher{run.summary['seed']}"}
    (row,) = verdicts.judge(frame({}), made).to_dict("records")
    assert row["seeds"] == "0 1"


def test_runs_that_differ_in_more_than_the_seed_are_refused(tmp_path):
    made = found(tmp_path / "a", config={"data": {"alpha": 0.1}, "run": {"workdir": 1}})
    made += [runs.read(make_run(tmp_path / "b", seed=1))]
    with pytest.raises(ValueError, match=r"bar A: the configs differ in data.alpha am"):
        verdicts.judge(frame({}), made)


def test_two_runs_of_a_seed_are_refused(tmp_path):
    made = found(tmp_path / "a") + found(tmp_path / "b")
    with pytest.raises(ValueError, match=r"bar A: one seed twice among .*; leave one"):
        verdicts.judge(frame({}), made)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([{}, {}], r"has the ids \['A'\] twice"),
        ([{"direction": ">"}], "direction of bar A is '>' .*; allowed: >=, <=, ="),
        ([{"judged": "best"}], "judged of bar A is 'best' .*; allowed: mean, worst"),
        ([{"direction": "=", "bar": math.nan}], "have '=' but no number"),
        ([{"bar": "high"}], "bar of bar A is 'high' .*; give a number"),
        ([{"expression": math.nan}], "expression of row 1 .* is blank"),
    ],
)
def test_a_wrong_file_of_bars_is_refused(tmp_path, changes, message):
    frame(*changes).to_csv(tmp_path / "bars.csv")
    with pytest.raises(ValueError, match=message):
        bars.read(tmp_path / "bars.csv")


def test_a_missing_column_is_named(tmp_path):
    frame({}).drop(columns=["judged", "bar"]).to_csv(tmp_path / "bars.csv")
    with pytest.raises(ValueError, match="lacks the columns bar, judged; add them"):
        bars.read(tmp_path / "bars.csv")


@pytest.mark.parametrize("path", BARS, ids=lambda path: path.parent.name)
def test_every_bar_in_the_repository_can_be_judged(tmp_path, path):
    rows = bars.read(path)
    named = rows[["experiment", "dataset"]].drop_duplicates()
    kd = {"kd": {"tier": "edge", "test": 0.97, "validation": 0.96}}
    baselines = summary("any", 0)["baselines"] | kd
    configs = ROOT / "configs"
    named_by_configs = {
        "_".join(file.relative_to(configs).with_suffix("").parts)
        for file in configs.rglob("*.py")
    }
    for number, (experiment, dataset) in enumerate(named.values.tolist()):
        assert experiment in named_by_configs
        make_run(
            tmp_path / str(number), experiment, dataset=dataset, baselines=baselines
        )
    table = verdicts.judge(rows, [runs.read(path) for path in runs.find([tmp_path])])
    assert set(table["verdict"]) <= {"met", "missed", "no bar"}
    assert (table["verdict"] == "no bar").equals(rows["bar"].isna())


@pytest.mark.parametrize("path", BARS, ids=lambda path: path.parent.name)
def test_a_committed_table_is_the_one_that_its_csv_prints(tmp_path, path):
    kept = path.parent / "tables"
    written = bars.write(pd.read_csv(kept / "bars.csv"), tmp_path / "bars.csv")
    assert written.read_text() == (kept / "bars.md").read_text()


@pytest.mark.parametrize("text", ["", 'a,b\n1,"2\n', "a,b\n1,2,3,4\n5,6,7,8,9\n"])
def test_a_file_that_is_no_table_is_named_with_the_remedy(tmp_path, text):
    path = tmp_path / "bars.csv"
    path.write_text(text)
    with pytest.raises(
        ValueError, match=r"bars.csv is no table \(.*give a CSV with one"
    ):
        bars.read(path)
    with pytest.raises(ValueError, match=r"is no table \(.*give a CSV with one bar"):
        bars.read(tmp_path)


def test_a_missing_file_of_bars_is_named_with_the_remedy(tmp_path):
    message = r"there is no file .*none.csv; give a CSV with one bar a row and the col"
    with pytest.raises(FileNotFoundError, match=message):
        bars.read(tmp_path / "none.csv")


def test_markdown_has_the_numbers_to_the_right():
    table = tables.TextTable("Title", ("a", "b"), [("x", "1")])
    assert tables.to_markdown(table) == (
        "Title\n\n| a | b |\n| --- | ---: |\n| x | 1 |\n"
    )


def against(**change):
    return frame({"experiment": "a", "against": "- b", "bar": 0.0, **change})


def test_an_experiment_to_compare_with_needs_a_sign(tmp_path):
    found = [runs.read(make_run(tmp_path, "a"))]
    for wrong in ("b", "* b", "- "):
        with pytest.raises(ValueError, match=r"against of bar A is .*'- ' or '/ '"):
            verdicts.judge(against(against=wrong), found)


@pytest.mark.parametrize("ours", [2.0, 0.0])
def test_a_ratio_to_what_is_0_names_bar_experiment_and_seed(tmp_path, ours):
    for seed, other in enumerate((1.0, 0.0)):
        make_run(tmp_path, "a", seed, seconds={"train": ours})
        make_run(tmp_path, "b", seed, seconds={"train": other})
    make_run(tmp_path, "b", 2, seconds={"train": 0.0})  # which a does not have
    found = [runs.read(path) for path in runs.find([tmp_path])]
    with pytest.raises(ValueError, match=r"bar A divides by b, which is 0 in seed 1;"):
        verdicts.judge(against(against="/ b"), found)
    others = [run for run in found if run.path.name[-5:] != "seed1"]
    (row,) = verdicts.judge(against(against="/ b"), others).to_dict("records")
    assert (row["ours_mean"], row["seeds"]) == (ours, "0")


def test_a_scale_is_of_the_value_its_spread_and_interval(tmp_path):
    for seed, seconds in enumerate((1.0, 3.0)):
        make_run(tmp_path, "a", seed, seconds={"train": seconds})
        make_run(tmp_path, "b", seed, seconds={"train": 1.0})
    found = [runs.read(path) for path in runs.find([tmp_path])]
    (one,), (hundred,) = (
        verdicts.judge(against(scale=scale), found).to_dict("records")
        for scale in (math.nan, 100.0)
    )
    for name in ("ours_mean", "ours_std", "ours_worst", "low", "high"):
        assert hundred[name] == pytest.approx(100 * one[name])
    assert (one["ours_mean"], one["verdict"]) == (1.0, "missed")


def test_runs_without_a_pair_are_not_named(tmp_path):
    for seed in range(2):
        make_run(tmp_path, "a", seed, seconds={"train": 2.0})
    for seed in range(1, 3):
        make_run(tmp_path, "b", seed, seconds={"train": 1.0})
    found = [runs.read(path) for path in runs.find([tmp_path])]
    for run in found:
        name = f"{run.summary['experiment']}{run.summary['seed']}"
        run.manifest.update(git_commit=name, git_dirty=False)
    (row,) = verdicts.judge(against(), found).to_dict("records")
    assert (row["seeds"], row["commit"]) == ("1", "a1 b1")
