"""A killed run, taken up by the same command, ends as a straight one does."""

import json
import signal
import subprocess
import sys

import pytest

from ecogen_jax.run.checkpoint import Checkpoints
from tests.equal_runs import assert_same_run, log
from tests.killed_train import TEMPORARY

ROUNDS = 24  # of the whole run, each of which ends with a checkpoint
CYCLE = "configs/relay_cycle.py:smoke"
HOPS = "configs/hops/d2.py:smoke --config.up_end_edge.teacher_weights=learned"


def command(workdir, spec):
    return ["--config", *spec.split(), f"--config.run.workdir={workdir}"]


def start(module, *arguments):
    """Runs a Python module to its end, however it ends."""
    return subprocess.run(
        [sys.executable, "-m", *module, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def killed(workdir, point, number, spec=CYCLE):
    """Starts the command, which is killed; returns the run folder."""
    done = start(("tests.killed_train", point, str(number)), *command(workdir, spec))
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    (path,) = workdir.glob("*/*")
    assert not (path / "summary.json").exists()
    return path


def finish(workdir, spec=CYCLE):
    done = start(("scripts.train",), *command(workdir, spec))
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = workdir.glob("*/*")
    return path


def half_written(path):
    return [p.name for p in (path / "checkpoints").iterdir() if TEMPORARY in p.name]


def standing(path):
    """The number of the newest checkpoint, without touching the folder."""
    names = [p.name for p in (path / "checkpoints").iterdir()]
    return max(int(name) for name in names if name.isdigit())


def assert_journal_is_complete(path):
    with Checkpoints(path / "checkpoints") as checkpoints:
        latest = checkpoints.latest()
    assert latest.step == latest.host["saves"] == ROUNDS
    assert (latest.host["index"], latest.host["round"]) == (12, 0)
    assert latest.host["lines"] == len(log(path))
    assert len(latest.host["phases"]) == 8
    assert half_written(path) == []


def test_a_run_killed_in_the_middle_of_a_checkpoint_loses_nothing(finished, tmp_path):
    # Checkpoint 5 stands in the middle of a hop, whose state has to come back too.
    path = killed(tmp_path, "write", 6)
    assert half_written(path) == [f"6{TEMPORARY}"]
    assert standing(path) == 5
    manifest = json.loads((path / "manifest.json").read_text())
    assert finish(tmp_path) == path
    taken_up = json.loads((path / "manifest.json").read_text())
    (again,) = taken_up.pop("resumed")
    assert taken_up == manifest
    assert again["git_commit"] == manifest["git_commit"]
    assert again["versions"] == manifest["versions"]
    assert again["started"] >= manifest["started"]
    assert_same_run(path, finished.path, times_resumed=1)
    assert_journal_is_complete(path)


@pytest.mark.slow
def test_a_run_killed_twice_loses_nothing(finished, tmp_path):
    path = killed(tmp_path, "commit", 6)
    # The rest of both down hops, and the first round of local fine-tuning, which is
    # logged but in no checkpoint.
    killed(tmp_path, "line", 6)
    assert half_written(path) == []
    assert standing(path) == 8
    assert len(log(path)) == 5 + 6
    assert finish(tmp_path) == path
    assert_same_run(path, finished.path, times_resumed=2)
    assert_journal_is_complete(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "number"),
    [("write", 1), ("commit", 4), ("write", 12), ("commit", ROUNDS), ("line", 16)],
)
def test_a_run_killed_anywhere_loses_nothing(finished, tmp_path, point, number):
    path = killed(tmp_path, point, number)
    if point != "line":
        assert half_written(path) == [f"{number}{TEMPORARY}"]
    assert finish(tmp_path) == path
    # A run without a single checkpoint starts over and is not counted as resumed.
    assert_same_run(path, finished.path, times_resumed=int(number > 1))
    assert_journal_is_complete(path)


@pytest.mark.slow
def test_a_route_of_hops_killed_in_a_hop_loses_nothing(tmp_path):
    # Checkpoint 3 stands in the middle of the first hop: its curve, its teachers'
    # learned weights and scores, and the ensemble that it is compared with have to come
    # back.
    path = killed(tmp_path / "killed", "write", 4, HOPS)
    assert standing(path) == 3
    straight = finish(tmp_path / "straight", HOPS)
    assert finish(tmp_path / "killed", HOPS) == path
    assert_same_run(path, straight, times_resumed=1)
    summary = json.loads((path / "summary.json").read_text())
    assert [hop["stage"] for hop in summary["hops"]] == ["up/end_edge", "up/edge_cloud"]
    assert set(summary["baselines"]) == {
        *("local_only", "ensemble_end", "ensemble_edge"),
    }
