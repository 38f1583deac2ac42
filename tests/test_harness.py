"""The command line that papers share: what a smoke prints, and what it refuses."""

import dataclasses
import errno
import os
import pathlib
import re
import shutil
import signal
import sys
import threading
import time

import pytest

from ecogen_jax.run.sweep import Cell
from papers_repro import harness
from papers_repro.dense import reproduce as dense
from papers_repro.dense.table import PAPER as DENSE
from papers_repro.dfkd import reproduce as dfkd
from papers_repro.dfkd.table import PAPER as DFKD
from papers_repro.fedgen import reproduce as fedgen
from papers_repro.fedgen.table import PAPER as FEDGEN
from tests.federation_folders import federation
from tests.run_folders import make_run

PAPERS = {"dfkd": (dfkd, DFKD), "dense": (dense, DENSE), "fedgen": (fedgen, FEDGEN)}


def sharing_the_head(tmp_path, experiment, dataset="mnist"):
    """Runs whose devices send as much as their bar allows."""
    return federation(
        tmp_path, experiment, {0: 0.7}, up=13680, active=10, dataset=dataset
    )


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A smoke whose runs are there already."""
    found = sharing_the_head(tmp_path, "B3.fedgen_smoke", "fake")
    monkeypatch.setattr(harness, "make", lambda *rest: [])
    monkeypatch.setattr(harness, "finished", lambda *rest: found)


@pytest.mark.usefixtures("made")
def test_a_smoke_says_what_it_is_and_judges_nothing(capsys):
    assert fedgen.main(["--smoke", "--only", "B3.bytes,B3.fedavg"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{harness.SMOKE}\n")
    assert "B3.bytes.up" in printed
    assert not re.search(r"\b(met|missed)\b", printed)
    assert "not run" in printed  # FedAvg's, which is no verdict on numbers


def test_verdicts_are_printed_where_it_is_no_smoke(tmp_path, capsys):
    table, console = fedgen.table, harness.Console(record=True)
    found = sharing_the_head(tmp_path, "B3.fedgen")
    judged = {"B3": table.judged("B3", fedgen.curves.enriched(found))}
    for smoke in (True, False):
        harness.tell(judged, FEDGEN, ["B3"], tmp_path, [], console, smoke=smoke)
        printed = capsys.readouterr().out
        assert (harness.SMOKE in printed) == smoke
        assert bool(re.search(r"\bmet\b", printed)) != smoke


@pytest.mark.parametrize("paper", [DFKD, DENSE, FEDGEN], ids=list(PAPERS))
def test_the_terminal_says_of_a_smoke_what_the_page_says(paper, tmp_path):
    page = paper.write({}, tmp_path, smoke=True).read_text()
    assert f"{harness.SMOKE}\n" in page


def test_the_name_of_a_table_stands_for_its_bars():
    for _, paper in PAPERS.values():
        for name, bars in paper.bars.items():  # a table prints its name in its command
            chosen = paper.chosen([name])["id"]
            assert set(bars["id"]) <= set(chosen)
            assert name in harness.asked_tables(paper, [name])


@pytest.mark.parametrize(
    ("name", "only", "refused", "known"),
    [
        ("dense", "C1.alpha0.1,C1.alpha0.3", "C1.alpha0.3", "C1.alpha0.1"),
        ("dfkd", "A4.long", "A4.long", "A4.relay"),
        ("fedgen", "B2", "B2", "B4.mnist.alpha0.1"),
        ("fedgen", "B5.fashion_mnist", "B5.fashion_mnist", "B5.mnist.alpha0.1"),
    ],
)
def test_a_smoke_refuses_what_it_does_not_run(capsys, name, only, refused, known):
    command, paper = PAPERS[name]
    with pytest.raises(SystemExit) as stopped:
        command.main(["--smoke", "--only", only])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert f"--only has {refused!r}, of which --smoke runs nothing; it runs" in message
    parts = message.strip().rpartition("it runs ")[2].split(", ")
    assert known in parts
    # Each of them is an id, and it runs all bars of it.
    smoke = {id for id, one in command.EXPERIMENTS.items() if one.in_smoke}
    for part in parts:
        assert set(paper.experiments(paper.chosen([part]))) <= smoke, part


@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.parametrize("jobs", ["0", "-1", "1.5", "two"])
def test_jobs_are_counted_from_1(capsys, name, jobs):
    with pytest.raises(SystemExit) as stopped:
        PAPERS[name][0].main(["--table", f"--jobs={jobs}"])
    assert stopped.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.endswith(
        f"argument --jobs: {jobs!r} is refused; allowed: a whole number of 1 or more"
    )


@pytest.mark.parametrize(
    ("name", "flag", "only"),
    [("dfkd", "tune", "A4"), ("dfkd", "calibrate", "A4"), ("fedgen", "tune", "B4")],
)
def test_what_is_done_for_all_is_refused_for_a_part(
    capsys, monkeypatch, name, flag, only
):
    command, _ = PAPERS[name]
    monkeypatch.setattr(command, "_reproduce", lambda *rest: 0)
    assert command.main([f"--{flag}"]) == 0
    with pytest.raises(SystemExit) as stopped:
        command.main([f"--{flag}", "--only", only])
    assert stopped.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    wanted = (
        f"--only is {only!r}, but --{flag} cannot be done in part; leave out --only"
    )
    assert wanted in line


def told(capsys, command):
    """Calls a command that ends with 2; returns the last line of stderr."""
    with pytest.raises(SystemExit) as stopped:
        command()
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_run_that_has_lost_a_file_is_told_with_the_remedy(
    capsys, monkeypatch, tmp_path
):
    lost = make_run(tmp_path, "B3.fedgen")
    (lost / "parties.csv").unlink()
    monkeypatch.setattr(harness.sweep, "finished_run", lambda cell: lost)
    line = told(capsys, lambda: fedgen.main(["--table", "--workdir", str(tmp_path)]))
    assert f"error: {lost}/parties.csv is missing; put the file back" in line


def test_tables_that_cannot_be_written_are_told_before_the_runs(capsys, tmp_path):
    folder = tmp_path / "fedgen"
    shutil.copytree(FEDGEN.folder, folder, ignore=shutil.ignore_patterns("tables"))
    (folder / "tables").touch()
    paper, options = dataclasses.replace(FEDGEN, folder=folder), harness.parser("", "")
    line = told(capsys, lambda: harness.command(options, [], paper, pytest.fail, []))
    assert f"error: {folder}/tables cannot be read or written (" in line


@pytest.mark.usefixtures("made")
def test_a_disk_that_is_full_after_the_runs_is_told_with_the_remedy(
    capsys, monkeypatch
):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("papers_repro.paper.put", full)
    line = told(capsys, lambda: fedgen.main(["--smoke", "--only", "B3.bytes"]))
    assert "tables cannot be read or written (No space left on device); " in line
    assert "make room" in line


@pytest.fixture
def endless(tmp_path, monkeypatch):
    """Runs that only a signal ends: their place."""
    # A test suite that was started in the background ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    code = "import time; time.sleep(60)"
    monkeypatch.setattr(
        harness.sweep, "command", lambda train, cell: [sys.executable, "-c", code]
    )
    monkeypatch.setattr(harness.sweep, "finished_run", lambda cell: None)
    cell = Cell("configs/quickstart.py:smoke", ())
    yield harness.Place(str(tmp_path), smoke=False, cell=lambda job, start: cell)
    signal.signal(signal.SIGINT, before)


def stop_soon(signum, logs, num_jobs):
    """Sends this process a signal once as many runs as go side by side have begun."""

    def send():
        while len(list(logs.glob("*"))) < num_jobs:
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(os.getpid(), signum)

    threading.Thread(target=send).start()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_the_runs_under_way_and_begins_no_other(
    endless, capsys, monkeypatch, signum
):
    jobs = [harness.Job("B1.fedavg", seed) for seed in range(3)]

    def reproduce(options, only, folder, console):
        harness.make(jobs, endless, 2, console)

    monkeypatch.setattr(fedgen, "_reproduce", reproduce)
    logs = pathlib.Path(endless.workdir, "logs")
    stop_soon(signum, logs, 2)
    start = time.monotonic()
    assert fedgen.main([]) == 130
    assert time.monotonic() - start < 20
    assert len(list(logs.iterdir())) == 2
    assert capsys.readouterr().err.startswith("stopped; ")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_run_that_is_looked_for_at_ctrl_c_is_not_begun(endless, monkeypatch):
    def find(cell):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)

    monkeypatch.setattr(harness.sweep, "finished_run", find)
    with pytest.raises(KeyboardInterrupt):
        harness.make([harness.Job("B1.fedavg", 0)], endless, 1, harness.Console())
    assert not pathlib.Path(endless.workdir, "logs").exists()


def test_the_tilde_of_the_workdir_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    options = harness.parser("doc", "runs/x").parse_args(["--workdir=~/runs"])
    assert options.workdir == f"{tmp_path}/runs"
