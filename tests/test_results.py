"""Reading a run back: what is no finished run says what it is."""

import json
import shutil

import pytest

import ecogen_jax
from ecogen_jax.run.checkpoint import CheckpointError


@pytest.fixture
def copied(finished, tmp_path):
    """A finished run of its own, to be damaged."""
    return shutil.copytree(finished.path, tmp_path / "copied")


def cut(file):
    file.write_bytes(file.read_bytes()[:10])


def test_what_is_no_finished_run_is_not_loaded_and_says_what_it_is(tmp_path):
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    for path, message in (
        (tmp_path / "nope", "there is no folder .*nope"),
        (tmp_path, "no run folder, and above none"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            ecogen_jax.load_run(path)
    (run / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="same command again"):
        ecogen_jax.load_run(run)
    (run / "summary.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=f"a folder above some; .*{run}"):
        ecogen_jax.load_run(tmp_path)


@pytest.mark.parametrize("damaged", ["_METADATA", "_CHECKPOINT_METADATA"])
def test_no_checkpoint_of_a_finished_run_is_to_be_deleted(copied, damaged):
    newest = max((copied / "checkpoints").iterdir(), key=lambda path: int(path.name))
    for file in newest.rglob(damaged):
        cut(file)
    with pytest.raises(CheckpointError) as error:
        ecogen_jax.load_run(copied)
    assert f"checkpoint {newest} cannot be read" in str(error.value)
    assert str(error.value).endswith("; put that folder back, or train the run again")


def test_a_finished_run_without_checkpoints_says_what_to_do(copied):
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(FileNotFoundError, match=r"is empty; put its folders back"):
        ecogen_jax.load_run(copied)


def test_a_run_below_the_home_folder_is_found_by_its_tilde(copied, monkeypatch):
    monkeypatch.setenv("HOME", str(copied.parent))
    assert ecogen_jax.load_run(f"~/{copied.name}").summary["seed"] == 0


@pytest.mark.parametrize("name", ["config.json", "summary.json"])
def test_a_damaged_file_is_named_with_the_remedy(copied, name):
    cut(copied / name)
    with pytest.raises(ValueError, match=rf"{name} is damaged .*; put the file back"):
        ecogen_jax.load_run(copied)
    (copied / name).write_text("{}")
    with pytest.raises(ValueError, match=rf"{name} is damaged \(it has no \w+"):
        ecogen_jax.load_run(copied)


@pytest.mark.parametrize(
    ("section", "name", "value"), [("data", "old", 1), ("nets", "edge", "old")]
)
def test_a_field_of_another_version_is_not_blamed_on_the_users_config(
    copied, section, name, value
):
    file = copied / "config.json"
    tree = json.loads(file.read_text())
    tree[section][name] = value
    file.write_text(json.dumps(tree))
    message = rf"{file} has {section}.{name} = {value!r}, .* or train the run again"
    with pytest.raises(ValueError, match=message) as error:
        ecogen_jax.load_run(copied)
    assert "Correct it in the config file" not in str(error.value)
