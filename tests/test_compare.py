import math
import re
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ecogen_jax import config as configs
from ecogen_jax.report import compare, runs
from scripts import compare as script
from tests.run_folders import make_run


def series(values, seeds=None):
    seeds = range(len(values)) if seeds is None else seeds
    return pd.Series(values, index=pd.Index(seeds), dtype=float)


def end_accuracy(value):
    return {"cycle": 1, "phase": "up", "accuracy": {"end": value}}


def make_runs(workdir, experiment, values, **kwargs):
    for seed, value in enumerate(values):
        make_run(workdir, experiment, seed, phases=[end_accuracy(value)], **kwargs)
    return [runs.read(path) for path in runs.find([workdir / experiment])]


def test_paired_is_the_paired_t_test():
    a = series([0.50, 0.55, 0.52, 0.60])
    b = series([0.58, 0.60, 0.61, 0.66])
    result = compare.paired(a, b)
    test = stats.ttest_rel(b, a)
    interval = test.confidence_interval(0.95)
    assert result.mean_difference == pytest.approx(0.07)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))
    assert result.p == pytest.approx(test.pvalue)
    assert result.n == 4


def test_paired_goes_by_seed_not_by_order():
    a = series([1, 2, 3], seeds=[0, 1, 2])
    b = series([4, 3, 2], seeds=[2, 1, 0])
    result = compare.paired(a, b)
    assert (result.low, result.mean_difference, result.high) == (1, 1, 1)
    assert result.p is None


def test_one_seed_gives_no_interval():
    result = compare.paired(series([1.0]), series([3.0]))
    assert result == compare.Paired(1.0, 3.0, 2.0, None, None, 1, None)


def test_unmatched_seeds_are_named():
    with pytest.raises(ValueError, match=r"seeds \[1, 5\] are in one group alone"):
        compare.paired(series([1, 2], [0, 1]), series([1, 2], [0, 5]))


def test_values_follow_dotted_paths(tmp_path):
    run = runs.read(make_run(tmp_path, seed=3))
    for quantity, value in (
        ("phases.-1.accuracy.end", 0.88),
        ("baselines.local_only.end", 0.56),
        ("ledger.link.cloud_edge.up_bytes", 1_200_000),
    ):
        frame = compare.values([run], quantity)
        assert frame["value"].tolist() == [value]
        assert frame["seed"].tolist() == [3]


@pytest.mark.parametrize(
    ("quantity", "message"),
    [
        ("ledger.edges.energy_j", "no 'edges'; there are cloud, edge, end, link"),
        ("phases.9.accuracy.end", "no '9'; there are 7 entries"),
        ("seed.a", "no 'a'; 0 has nothing below it"),
        ("dataset", "'dataset' is 'mnist'"),
        ("phases", "not a number; there are 7 entries"),
        ("ledger.cloud", "not a number; there are "),
        ("privacy", "'privacy' is None .*this run has no such value"),
        ("synthetic_data", "'synthetic_data' is False"),
    ],
)
def test_wrong_quantity_says_what_there_is(tmp_path, quantity, message):
    run = runs.read(make_run(tmp_path, privacy=None))
    with pytest.raises(ValueError, match=message):
        compare.values([run], quantity)


def test_groups_and_pairs(tmp_path):
    found = make_runs(tmp_path, "b", [0.5, 0.7]) + make_runs(tmp_path, "a", [0.9, 0.8])
    quantity = "phases.-1.accuracy.end"
    groups = compare.by_seed(compare.values(found, quantity))
    assert list(groups) == ["b", "a"]  # order given: the first is the reference
    table = compare.groups_table(groups, quantity).set_index("group")
    assert table.loc["b", "mean"] == pytest.approx(0.6)
    assert table.loc["b", "std"] == pytest.approx(math.sqrt(0.02))
    assert table["worst"].tolist() == [0.5, 0.8]
    pairs = compare.pairs_table(groups, quantity)
    assert pairs[["reference", "group"]].values.tolist() == [["b", "a"]]
    assert pairs["mean_difference"].tolist() == pytest.approx([0.25])


@pytest.mark.parametrize(
    ("quantity", "worst"),
    [
        ("hops.-1.test", 0.25),
        ("hops.-1.last_validation", 0.25),
        ("baselines.local_only.end_own", 0.25),
        ("baselines.local_only.energy_j", 0.5),
        ("hops.-1.largest_drop_last_half", 0.5),
        ("hops.-1.seconds.train", 0.5),
        ("hops.-1.link.cloud_edge.up_bytes", 0.5),
    ],
)
def test_the_worst_accuracy_is_the_lowest_wherever_it_stands(quantity, worst):
    groups = {"a": pd.Series([0.5, 0.25])}
    assert compare.groups_table(groups, quantity)["worst"].tolist() == [worst]


def test_the_worst_cost_is_the_highest():
    groups = {"a": series([1, 5, 3])}
    assert compare.groups_table(groups, "ledger.end.energy_j")["worst"].tolist() == [5]


def test_groups_by_config_field(tmp_path):
    make_run(tmp_path / "1", config={"data": {"alpha": 0.1}})
    make_run(tmp_path / "2", config={"data": {"alpha": 1.0}}, dataset="usps")
    found = [runs.read(path) for path in runs.find([tmp_path])]
    frame = compare.values(found, "resumed", ("dataset", "data.alpha"))
    assert frame["group"].tolist() == ["mnist 0.1", "usps 1.0"]
    with pytest.raises(ValueError, match=r"has 2 runs of seed 0: .*--by"):
        compare.by_seed(compare.values(found, "resumed"))


def test_a_group_of_other_configs_is_refused_by_field(tmp_path):
    make_run(tmp_path / "1", config={"data": {"alpha": 0.1}})
    make_run(tmp_path / "2", seed=1, config={"data": {"alpha": 1.0}})
    found = [runs.read(path) for path in runs.find([tmp_path])]
    with pytest.raises(ValueError, match=r"differ in data.alpha among .*--by"):
        compare.check_alike(found, ["experiment"])
    compare.check_alike(found, ["experiment", "data.alpha"])


def test_fields_without_effect_may_differ_in_a_group(tmp_path):
    for seed, chunk in enumerate((1, 2)):
        made = {"mesh": {"backend": "scan", "chunk": chunk}}
        make_run(tmp_path / str(seed), seed=seed, config=made)
    found = [runs.read(path) for path in runs.find([tmp_path])]
    compare.check_alike(found, ["experiment"])
    assert compare.differing(found) == []


def run_script(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "80")
    return script.main()


def test_script_prints_and_writes(tmp_path, monkeypatch, capsys):
    make_runs(tmp_path, "b", [0.5, 0.7])
    make_runs(tmp_path, "a", [0.9, 0.8])
    csv, markdown = tmp_path / "out.csv", tmp_path / "out.md"
    to = ("--csv", csv, "--markdown", markdown)
    assert run_script(monkeypatch, tmp_path / "b", tmp_path / "a", *to) == 0
    assert "Paired by seed" in capsys.readouterr().out
    lines = markdown.read_text().splitlines()
    assert "| phases.-1.accuracy.end | b | 0.6 | 0.1414 | 0.5 | 2 | 0 1 |" in lines
    assert lines.count("") == 3  # below each title, and between the tables
    frame = pd.read_csv(csv)
    assert frame["group"].tolist() == ["b", "a", "a"]
    assert frame["mean_difference"].iloc[2] == pytest.approx(0.25)


def test_script_names_the_field_in_which_two_runs_of_a_seed_differ(
    tmp_path, monkeypatch, capsys
):
    for name, alpha in (("1", 0.1), ("2", 1.0)):
        make_run(tmp_path / name, config={"data": {"alpha": alpha}})
    assert run_script(monkeypatch, tmp_path) == 2
    assert "differ in data.alpha among" in capsys.readouterr().err


def test_nothing_to_choose_from_is_said():
    with pytest.raises(ValueError, match="no 'kd'; it is empty"):
        compare.number({"baselines": {}}, "baselines.kd", "summary.json")


def test_script_says_that_one_seed_is_not_enough(tmp_path, monkeypatch, capsys):
    make_runs(tmp_path, "b", [0.5])
    make_runs(tmp_path, "a", [0.9])
    run_script(monkeypatch, tmp_path)
    assert "One seed gives no interval" in capsys.readouterr().out


def test_script_ends_on_bad_input(tmp_path, monkeypatch, capsys):
    assert run_script(monkeypatch, tmp_path / "nothing") == 2
    assert capsys.readouterr().err.startswith("error: no finished run in")


def test_script_cuts_nothing_at_80_columns(tmp_path, monkeypatch, capsys):
    name = "an_experiment_of_a_name_that_takes_half_of_the_line"
    make_runs(tmp_path, f"{name}_b", [0.51234, 0.7])
    make_runs(tmp_path, f"{name}_a", [0.91234, 0.8])
    run_script(monkeypatch, tmp_path)
    out = capsys.readouterr().out
    assert "…" not in out
    words = ("mean_difference", "phases.-1.accuracy.end", f"{name}_a", f"{name}_b")
    assert all(word in out for word in words)
    assert "SYNTHETIC" not in out


def test_script_says_that_runs_are_synthetic(tmp_path, monkeypatch, capsys):
    make_runs(tmp_path, "b", [0.5, 0.7])
    make_runs(tmp_path, "a", [0.9, 0.8], synthetic_data=True)
    csv, markdown = tmp_path / "out.csv", tmp_path / "out.md"
    run_script(monkeypatch, tmp_path, "--csv", csv, "--markdown", markdown)
    warning = "SYNTHETIC DATA: these numbers show nothing"
    assert warning in capsys.readouterr().out
    assert markdown.read_text().startswith(f"**{warning}**\n\n")
    assert pd.read_csv(csv)["synthetic_data"].all()


@pytest.mark.parametrize("flag", ["--csv", "--markdown"])
def test_script_refuses_an_output_before_the_work(tmp_path, monkeypatch, capsys, flag):
    make_runs(tmp_path, "b", [0.5])
    monkeypatch.setattr(script.runs, "find", lambda paths: pytest.fail("it works"))
    for path, message in (
        (tmp_path / "no" / "x.csv", f"{flag} is .*x.csv, but there is no folder .*no;"),
        (tmp_path, f"{flag} is .*, a folder; name a file in it"),
        ("/proc/x.csv", f"{flag} is /proc/x.csv, which cannot be written "),
        (tmp_path / ("x" * 300), f"{flag} is .*xx, which cannot be written "),
    ):
        assert run_script(monkeypatch, tmp_path, flag, path) == 2
        assert re.match(f"error: {message}", capsys.readouterr().err)


@pytest.mark.parametrize("name", ["summary.json", "metrics.jsonl", "ledger.csv"])
def test_script_names_a_damaged_file(tmp_path, monkeypatch, capsys, name):
    path = make_run(tmp_path) / name
    path.write_text("" if name == "ledger.csv" else '{"seed": ')
    message = rf"error: {re.escape(str(path))} is damaged \(.*; put the file back, or"
    assert run_script(monkeypatch, tmp_path) == 2
    assert re.match(message, capsys.readouterr().err)


def test_the_example_names_folders_that_runs_have(tmp_path):
    shown = re.findall(r"runs/(\w+)", script.EXAMPLE)
    files = ("configs/relay_cycle.py", "configs/federated/fedavg.py")
    assert shown == [configs.load(file).experiment for file in files]


def test_the_interval_of_a_spread_is_that_of_chi_square():
    # Ten values: 0.688 and 1.826 of their standard deviation, as in tables.
    values = pd.Series(np.arange(10.0))
    low, high = compare.spread_interval(values)
    assert low / values.std() == pytest.approx(0.688, abs=1e-3)
    assert high / values.std() == pytest.approx(1.826, abs=1e-3)
