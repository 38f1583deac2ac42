"""The command line of the attacks: a protection that is none is refused."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from ecogen_jax.data.sources import DataUnavailableError
from ecogen_jax.run.checkpoint import CheckpointError
from scripts import attack


def parse(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["attack.py", "--run", "runs/x", *words])
    return attack.parse_args()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--clip -1", "--clip is -1: allowed is 0 (off) or more"),
        ("--clip nan", "--clip is nan: allowed"),
        ("--clip 1 --noise-multiplier -2", "--noise-multiplier is -2: allowed is 0"),
        ("--noise-multiplier 1", "--noise-multiplier is 1 without --clip: the noise"),
    ],
)
def test_a_wrong_protection_is_refused(monkeypatch, capsys, words, message):
    with pytest.raises(SystemExit) as stopped:
        parse(monkeypatch, *words.split())
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [DataUnavailableError("no mnist"), CheckpointError("checkpoint 3")]
)
def test_what_a_run_lacks_is_told_in_one_line(monkeypatch, capsys, error):
    def missing(path, args):
        raise error

    parse(monkeypatch)
    monkeypatch.setattr(attack.mesh, "start", lambda num_devices: None)
    monkeypatch.setattr(attack.runs, "find", lambda folders: ["runs/x"])
    monkeypatch.setattr(attack, "attack_one", missing)
    assert attack.main() == 2
    assert capsys.readouterr().err == f"error: {error}\n"


@pytest.fixture
def attacked(monkeypatch, tmp_path):
    """Calls the script on a run folder; the attacks themselves are a table."""
    from ecogen_jax.run import attacks

    calls = []
    rows = pd.DataFrame({"auc": [0.5]})
    monkeypatch.setattr(
        attacks, "attack", lambda *run, **how: calls.append(run) or rows
    )
    monkeypatch.setattr(attack.mesh, "start", lambda num_devices: None)
    monkeypatch.setattr(attack.runs, "find", lambda folders: [tmp_path])
    parse(monkeypatch)
    return calls


def test_a_folder_that_takes_no_results_is_named_before_the_attacks(
    attacked, tmp_path, capsys
):
    (tmp_path / "attacks").touch()
    assert attack.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    wanted = f"error: {tmp_path}/attacks cannot be read or written (File exists); clear"
    assert line.startswith(wanted)
    assert not attacked


def test_results_that_cannot_be_written_are_one_line(attacked, tmp_path, capsys):
    (tmp_path / "attacks" / "attacks.csv").mkdir(parents=True)
    assert attack.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    wanted = f"error: {tmp_path}/attacks/attacks.csv cannot be read or written ("
    assert line.startswith(wanted)
    assert attacked


def played(monkeypatch, protections, *words):
    """Runs the script on a run whose table has a row for each protection."""
    rows = pd.DataFrame({"protocol": "feddistill", "protection": protections})
    rows["synthetic_data"] = False
    parse(monkeypatch, *words)
    monkeypatch.setattr(attack.mesh, "start", lambda num_devices: None)
    monkeypatch.setattr(attack.runs, "find", lambda folders: [Path("runs/x")])
    monkeypatch.setattr(attack, "attack_one", lambda path, args: rows)
    assert attack.main() == 0


def test_a_protection_of_a_run_that_sends_no_update_is_told_to_have_no_effect(
    monkeypatch, capsys
):
    clip = ("--clip", "1", "--noise-multiplier", "1")
    played(monkeypatch, ["none", "none"], *clip)
    told = "--clip has no effect: feddistill sends no update that a device could clip"
    assert capsys.readouterr().out == f"{told}\nruns/x/attacks\n"
    played(monkeypatch, ["none", "clip 1, noise 1"], *clip)
    assert capsys.readouterr().out == "runs/x/attacks\n"
    played(monkeypatch, ["none", "none"])
    assert capsys.readouterr().out == "runs/x/attacks\n"


@pytest.mark.parametrize("words", ["", "--clip 0.5", "--clip 1 --noise-multiplier 2"])
def test_a_protection_may_be_none_a_norm_or_both(monkeypatch, words):
    args = parse(monkeypatch, *words.split())
    assert (args.clip > 0) == ("--clip" in words)
