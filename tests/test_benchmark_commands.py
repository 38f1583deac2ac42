"""The benchmark's commands: what they refuse before minutes of work, and why."""

import os
import subprocess
import sys

import pytest

from benchmarks import conv, rows, run, scale, workers
from benchmarks.ours import rounds

WORK = (
    (run, "take_turns"),
    (conv, "measure"),
    (scale, "in_process"),
    (scale, "measured"),
    (rounds.mesh, "start"),
)


@pytest.fixture
def refused(monkeypatch, capsys):
    """Calls a command that ends with 2 before its work; returns its last line."""

    def call(command, *words):
        for module, work in WORK:
            monkeypatch.setattr(module, work, lambda *rest: pytest.fail("it works"))
        monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            command.main()
        assert stopped.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]

    return call


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (run, "--repeats 0"),
        (conv, "--repeats 0"),
        (scale, "--cell 0 5"),
        (rounds, "fedgen --devices 0"),
        (rounds, "fedgen --edges 0"),
    ],
)
def test_a_count_of_0_is_refused_by_its_flag(refused, command, words):
    error = refused(command, *words.split())
    (flag,) = (word for word in words.split() if word.startswith("--"))
    wanted = f"argument {flag}: '0' is refused; allowed: a whole number of 1 or more"
    assert error.endswith(wanted)


@pytest.mark.parametrize(
    ("command", "name"), [(run, "S1.md"), (conv, "conv_bars.md"), (scale, "scale.png")]
)
def test_an_output_that_cannot_be_written(tmp_path, refused, command, name):
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.touch()
    (folder / name).mkdir(parents=True)
    for out, path in ((file, file), (file / "below", file), (folder, folder / name)):
        error = refused(command, "--out", out)
        assert f"error: argument --out: {path}" in error
        assert "cannot be read or written" in error
        assert "clear the path" in error


@pytest.mark.parametrize(
    "text",
    [
        "",
        "id,verdict\nS1.jax,met\n",
        f"{','.join(rows.COLUMNS)}\n{','.join(['half'] * len(rows.COLUMNS))}\n",
        'id\n"',
    ],
)
def test_a_damaged_table_of_an_earlier_call(tmp_path, refused, text):
    (tmp_path / "S3a.csv").write_text(text)  # not asked for, but drawn with the others
    error = refused(run, "--only", "S1", "--out", tmp_path)
    assert f"error: {tmp_path}/S3a.csv is no table of this benchmark (" in error
    assert error.endswith("remove it, or name another folder with --out")


def test_the_tables_of_the_repository_are_whole():
    tables = rows.read_tables(run.ROOT / "benchmarks" / "results")
    assert {id for table in tables for id in table["id"]} == set(rows.read()["id"])


@pytest.mark.parametrize(
    ("code", "reason"), [(1, "Much: more"), (-9, "killed by SIGKILL")]
)
def test_a_cell_that_fails_is_told_with_its_last_words(
    tmp_path, monkeypatch, capsys, code, reason
):
    ended = subprocess.CompletedProcess([], code, "", "Traceback\nMuch: more\n")
    monkeypatch.setattr(os, "sched_setaffinity", lambda *cores: None)
    monkeypatch.setattr(subprocess, "run", lambda *command, **how: ended)
    folder = tmp_path / "new" / "folder"
    monkeypatch.setattr(sys, "argv", ["command", "--out", str(folder)])
    with pytest.raises(SystemExit) as stopped:
        scale.main()
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: fedavg, 1000 devices, 1000 in a round: {reason}; ")
    assert line.endswith("python -m benchmarks.scale --method fedavg --cell 1000 1000")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("method", [scale.FREE, scale.KEEPING])
def test_a_cell_of_scale_times_rounds_of_either_method(method):
    found = scale.in_process(6, 4, method)
    assert (found["method"], found["devices"], found["cohort"]) == (method, 6, 4)
    assert 0 < found["round_s"] <= found["round_worst_s"]
    assert found["memory_gb"] > 0


def test_the_last_words_of_an_error_in_jax_say_what_it_is():
    code = "import jax; jax.jit(lambda x: x @ x)(jax.numpy.ones((2, 3)))"
    env = os.environ | dict([workers.TOLD_LAST])
    ended = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True
    )
    error = workers.failure(ended.returncode, ended.stderr)
    assert str(error).startswith("TypeError: dot_general")
