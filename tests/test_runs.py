"""Run folders are read back whole, or what is wrong with them is named."""

import pytest

from ecogen_jax.report import runs
from tests.run_folders import make_run


def test_read(tmp_path):
    run = runs.read(make_run(tmp_path))
    assert run.summary["seed"] == run.config["seed"] == 0
    assert run.metrics["event"].iloc[0] == "started"
    assert run.metrics["cloud/validation_accuracy"].notna().any()
    assert list(run.parties["party"]) == [f"end{number}" for number in range(10)]
    assert run.ledger["energy_j"].tolist() == [15.5]


@pytest.mark.parametrize("reader", [runs.read, lambda path: runs.find([path])])
def test_unfinished_run_says_how_to_go_on(tmp_path, reader):
    path = make_run(tmp_path)
    (path / "summary.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"not finished.*same command"):
        reader(path)


def test_missing_file_is_named(tmp_path):
    path = make_run(tmp_path)
    (path / "ledger.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"ledger\.csv is missing; put"):
        runs.read(path)


@pytest.mark.parametrize(
    ("name", "text", "lacking"),
    [
        ("summary.json", "{}", "experiment, seed, dataset"),
        ("manifest.json", "{}", "git_commit"),
        ("metrics.jsonl", "", "stage"),
        ("ledger.csv", "a\n1\n", "place"),
    ],
)
def test_a_file_without_its_content_is_damaged(tmp_path, name, text, lacking):
    path = make_run(tmp_path) / name
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"{name} is damaged \(it has no {lacking}"):
        runs.read(path.parent)


@pytest.mark.parametrize("name", ["summary.json", "manifest.json", "config.json"])
@pytest.mark.parametrize("text", ["null", "3", "[]"])
def test_json_of_another_shape_is_damaged(tmp_path, name, text):
    path = make_run(tmp_path) / name
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"{name} is damaged \(it holds no JSON obj"):
        runs.read(path.parent)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    path = make_run(tmp_path) / "parties.csv"
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=r"parties\.csv cannot be read \(Is a dir"):
        runs.read(path.parent)


def test_find_expands_folders_in_the_order_given(tmp_path):
    a0, a1 = make_run(tmp_path, "a", 0), make_run(tmp_path, "a", 1)
    b0, unfinished = make_run(tmp_path, "b", 0), make_run(tmp_path, "b", 1)
    (unfinished / "summary.json").unlink()
    assert runs.find([tmp_path / "b", tmp_path]) == [b0, a0, a1]
    with pytest.raises(FileNotFoundError, match="no finished run in"):
        runs.find([tmp_path / "c"])
