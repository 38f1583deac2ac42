import copy
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.config import ConfigError, default, load, to_dict
from ecogen_jax.run import writer

CONFIG = {"experiment": "x", "seed": 0, "data": {"missing": (8, 9)}}


def finish(run):
    writer.write_json(run.path / "summary.json", {})


def open_run(workdir, config=CONFIG, seed=0):
    return writer.open_run(workdir, "x", seed, config)


def test_new_runs_get_folders_of_their_own_within_a_second(tmp_path):
    paths = []
    for _ in range(3):
        with open_run(tmp_path) as run:
            finish(run)
        assert not run.resumed
        paths.append(run.path)
    assert len(set(paths)) == 3
    assert paths == sorted(paths)  # the newest comes last
    assert all(path.parent == tmp_path / "x" for path in paths)
    assert all(path.name.endswith("-seed0") for path in paths)


def test_an_unfinished_run_of_a_version_without_a_field_is_taken_up(tmp_path):
    config = to_dict(default())
    with open_run(tmp_path, config) as first:
        older = json.loads((first.path / "config.json").read_text())
        del older["pretrain"]["flip"], older["federated"]
        writer.write_json(first.path / "config.json", older)
    with open_run(tmp_path, config) as second:
        assert (second.path, second.resumed) == (first.path, True)
    config["pretrain"]["flip"] = True  # which the older version had not
    with open_run(tmp_path, config) as other:
        assert not other.resumed


def test_unfinished_run_of_the_same_config_is_taken_up(tmp_path):
    with open_run(tmp_path) as first:
        pass
    with open_run(tmp_path) as second:
        pass
    assert (second.path, second.resumed) == (first.path, True)


@pytest.mark.parametrize(
    ("config", "seed"), [({**CONFIG, "data": {"missing": (8,)}}, 0), (CONFIG, 1)]
)
def test_other_config_or_seed_is_a_new_run(tmp_path, config, seed):
    with open_run(tmp_path) as first, open_run(tmp_path, config, seed) as second:
        assert not second.resumed
        assert second.path != first.path


def test_a_run_is_found_by_any_name_of_its_folder_and_where_it_was_moved(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with open_run("runs", {**CONFIG, "run": {"workdir": "runs"}}) as first:
        assert not first.resumed
    for name in ("./runs", "runs/", str(tmp_path / "runs")):
        with open_run(name, {**CONFIG, "run": {"workdir": name}}) as again:
            assert again.resumed
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    with open_run("elsewhere", {**CONFIG, "run": {"workdir": "elsewhere"}}) as moved:
        assert moved.resumed


@pytest.mark.parametrize("text", ["{", "null", "[]", '{"run": "x"}'])
def test_a_damaged_config_is_passed_over(tmp_path, text):
    with open_run(tmp_path) as damaged:
        (damaged.path / "config.json").write_text(text)
    with open_run(tmp_path) as new:
        assert not new.resumed
        assert new.path != damaged.path


def test_locked_run_is_left_alone(tmp_path):
    with open_run(tmp_path) as first, open_run(tmp_path) as second:
        assert not second.resumed
        assert second.path != first.path


def test_a_killed_process_lets_its_folder_go(tmp_path):
    code = f"""
import os, signal
from ecogen_jax.run import writer
run = writer.open_run({str(tmp_path)!r}, "x", 0, {CONFIG!r})
print(run.path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -9
    with open_run(tmp_path) as run:
        assert run.resumed
        assert str(run.path) == done.stdout.strip()


def test_a_folder_without_config_is_ignored(tmp_path):
    half_made = tmp_path / "x" / "20200101-000000-seed0"
    half_made.mkdir(parents=True)
    with open_run(tmp_path) as run:
        assert run.path != half_made


def test_find_runs_tells_finished_from_unfinished(tmp_path):
    with open_run(tmp_path) as old:
        finish(old)
    with open_run(tmp_path) as new:
        finish(new)
    with open_run(tmp_path) as unfinished:
        pass

    def find(finished):
        return list(writer.find_runs(tmp_path, "x", 0, CONFIG, finished=finished))

    assert find(True) == [new.path, old.path]
    assert find(False) == [unfinished.path]


def test_a_field_without_effect_makes_no_other_run(tmp_path):
    asked = to_dict(load("configs/federated/fedavg.py"))
    with writer.open_run(tmp_path, "x", 0, asked) as run:
        finish(run)

    def find(**fields):
        other = copy.deepcopy(asked)
        other["federated"].update(fields)
        return list(writer.find_runs(tmp_path, "x", 0, other, finished=True))

    other_method = asked["federated"]["fedgen"] | {"weight": 3.0}
    assert find() == find(fedgen=other_method) == find(keep=0.5) == [run.path]
    assert find(rounds=7) == find(compression="topk", keep=0.5) == []


def test_write_json_leaves_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "a.json"
    values = {"a": np.float32(0.5), "b": jnp.int32(3), "c": (1, 2)}
    writer.write_json(path, values)
    assert json.loads(path.read_text()) == {"a": 0.5, "b": 3, "c": [1, 2]}
    with pytest.raises(AttributeError):
        writer.write_json(path, {"a": object()})
    assert json.loads(path.read_text())["b"] == 3
    assert list(tmp_path.iterdir()) == [path]


def test_truncated_metrics_hold_no_line_twice(tmp_path):
    with open_run(tmp_path) as run:
        for number in range(4):
            writer.append_metrics(run, [{"round": number}])
        writer.truncate_metrics(run, 2)
        writer.append_metrics(run, [{"round": 2}])
        lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [0, 1, 2]


def test_a_torn_last_line_is_dropped(tmp_path):
    with open_run(tmp_path) as run:
        writer.append_metrics(run, [{"round": 0}])
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write('{"rou')
        writer.truncate_metrics(run, 1)
        assert (run.path / "metrics.jsonl").read_text() == '{"round": 0}\n'


def test_lines_that_a_full_disk_cuts_short_are_an_error_and_gone_by_a_resume(tmp_path):
    class Full:
        """The open file of a disk that takes one line more and a half."""

        room = 21

        def write(self, data):
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = run.metrics.write(data[: self.room])
            self.room -= written
            return written

    with open_run(tmp_path) as run:
        writer.append_metrics(run, [{"round": 1}])
        with pytest.raises(OSError, match="No space left on device"):
            writer.append_metrics(
                run._replace(metrics=Full()), [{"round": 2}, {"round": 3}]
            )
        writer.truncate_metrics(run, 1)
        writer.append_metrics(run, [{"round": 2}])
        lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [1, 2]


def test_lost_metrics_are_an_error(tmp_path):
    with open_run(tmp_path) as run:
        writer.append_metrics(run, [{"round": 0}])
        with pytest.raises(ValueError, match=r"has 1 lines, but .* after 5"):
            writer.truncate_metrics(run, 5)


def test_manifest_says_how_to_run_it_again():
    command = ["scripts/train.py", "--config", "a b.py"]
    manifest = writer.manifest(7, command, True)
    assert manifest["command"] == "python scripts/train.py --config 'a b.py'"
    assert manifest["seed"] == 7
    assert manifest["synthetic_data"] is True
    assert set(manifest["versions"]) == set(writer.PACKAGES)
    assert len(manifest["devices"]) == 8
    json.dumps(manifest)


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True)


def test_git_state_of_the_source(tmp_path, monkeypatch):
    source = tmp_path / "writer.py"
    source.write_text("")
    monkeypatch.setattr(writer, "__file__", str(source))
    assert writer.git_state() == (None, None)  # no checkout
    git(tmp_path, "init", "-q")
    assert writer.git_state() == (None, None)  # somebody else's checkout
    git(tmp_path, "add", "writer.py")
    git(tmp_path, "commit", "-q", "-m", "a")
    commit, dirty = writer.git_state()
    assert len(commit) == 40
    assert dirty is False
    extra = tmp_path / "extra.py"
    extra.write_text("")
    assert writer.git_state() == (commit, True)
    extra.unlink()
    for printed in ("papers_repro/one/tables/C1.csv", "benchmarks/results/S1.md"):
        table = tmp_path / printed
        table.parent.mkdir(parents=True)
        table.write_text("")
    assert writer.git_state() == (commit, False)
    source.write_text("changed")
    assert writer.git_state() == (commit, True)


def test_a_workdir_that_is_a_file_names_the_field(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("")
    message = r"run.workdir = '.*README.md' is refused; allowed: a folder to write runs"
    with pytest.raises(ConfigError, match=message):
        open_run(path)
    (tmp_path / "x").write_text("")  # where the folder of the experiment would be
    with pytest.raises(ConfigError, match=r"run\.workdir"):
        open_run(tmp_path)


def test_a_workdir_that_is_a_file_is_refused_in_every_process(tmp_path, monkeypatch):
    path, told = tmp_path / "README.md", []
    path.write_text("")
    monkeypatch.setattr(
        writer.distributed, "text_from_main", lambda text: told.append(text) or told[0]
    )
    messages = []
    for is_main in (True, False):
        monkeypatch.setattr(writer.distributed, "is_main", lambda now=is_main: now)
        with pytest.raises(ConfigError, match=r"run\.workdir = .*README") as refused:
            open_run(path)
        messages.append(str(refused.value))
    assert len(told) == 2
    assert messages[0] == messages[1]


def test_a_tilde_in_the_workdir_is_the_home_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    with open_run("~/runs") as run:
        assert run.path.parent == tmp_path / "runs" / "x"
    (found,) = writer.find_runs("~/runs", "x", 0, CONFIG, finished=False)
    assert found == run.path
    with pytest.raises(ConfigError, match=r"run.workdir = '~nobody-at-all/runs'"):
        open_run("~nobody-at-all/runs")
    assert not list(Path.cwd().iterdir())


def test_an_opened_run_is_told_with_its_folder(tmp_path, caplog):
    caplog.set_level("INFO", logger=writer.__name__)
    with open_run(tmp_path) as first:
        pass
    with open_run(tmp_path):
        pass
    told = f"run folder  {first.path}"
    assert [record.getMessage() for record in caplog.records] == [
        told,
        f"{told}, resumed",
    ]
