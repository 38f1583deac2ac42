"""Paths are printed as they are: brackets in them are not markup."""

import sys
import types

import pytest
import rich

from benchmarks.peers import __main__ as peers
from ecogen_jax import config as configs
from ecogen_jax.run import loop, sweep
from papers_repro import harness
from papers_repro.fedgen.table import PAPER
from scripts import attack, calibrate, table, train
from scripts import sweep as sweep_script
from tests.run_folders import make_run

BARS = """id,experiment,dataset,expression,direction,bar,judged,aim,quantity,unit
A,relay_cycle,mnist,seconds.train,<=,240,mean,,training time,s
"""


@pytest.fixture
def odd(tmp_path):
    """A folder that is called as a tag, below one that ends another tag."""
    folder = tmp_path / "runs[bold]" / "a[" / "x]"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def called(monkeypatch, capsys):
    """Calls a script, and returns what it prints."""

    def call(script, *words):
        monkeypatch.setattr(sys, "argv", ["script.py", *map(str, words)])
        assert script.main() == 0
        return capsys.readouterr().out

    return call


def test_of_a_run(odd, monkeypatch):
    path = make_run(odd)
    monkeypatch.setattr(loop, "run", lambda config: path)
    console = harness.Console(record=True, width=80)
    assert train.report(configs.default(), console) == 0
    printed = console.export_text()
    assert f"run folder  {path}\n" in printed
    assert f"report      {path}/report.html\n" in printed


def test_of_attacks(odd, called, monkeypatch):
    monkeypatch.setattr(attack.mesh, "start", lambda num_devices: None)
    monkeypatch.setattr(attack.runs, "find", lambda folders: [odd])
    monkeypatch.setattr(attack, "attack_one", lambda path, args: None)
    monkeypatch.setattr(attack, "show", lambda *rest: None)
    assert called(attack, "--run", odd) == f"{odd}/attacks\n"


def test_of_a_table_of_bars(odd, called):
    (odd / "bars.csv").write_text(BARS)
    printed = called(table, odd / "bars.csv", make_run(odd))
    assert printed.endswith(f"written to {odd}/tables/bars.md and its .csv\n")


def test_of_a_calibration(odd, called):
    printed = called(calibrate, "--size", 16, "--output", odd / "speed.json")
    assert printed.endswith(f"written to {odd}/speed.json\n")


def test_of_the_tables_of_a_paper(odd, capsys):
    console = harness.Console()
    harness.tell({}, PAPER, [], odd / "all.md", [], console, smoke=False)
    assert capsys.readouterr().out == f"written to {odd}/all.md and beside it\n"


def test_of_a_sweep_whose_overrides_have_them(odd, monkeypatch, capsys):
    cell = sweep.Cell("x.py", (f"run.workdir={odd}",))
    result = sweep.Result(cell, "done", 1.0, odd)

    def run(cells, train, started):
        started(cell)
        yield result

    monkeypatch.setattr(sweep, "run", run)
    monkeypatch.setenv("COLUMNS", "500")
    # A console keeps the width that it had when another test made it.
    monkeypatch.setattr(rich, "_console", None)
    results = list(sweep_script.run_with_progress([cell]))
    assert f"run.workdir={odd} " in capsys.readouterr().out
    sweep_script.show(results)
    assert f"run.workdir={odd} " in capsys.readouterr().out


def test_of_the_log_of_a_peer_that_is_not_installed(odd, monkeypatch, capsys):
    failed = types.SimpleNamespace(returncode=1)
    monkeypatch.setattr(peers, "folder", lambda name: odd / name)
    monkeypatch.setattr(peers, "interpreter", lambda name: None)
    monkeypatch.setattr(peers.venv, "create", lambda *rest, **options: None)
    monkeypatch.setattr(peers.subprocess, "run", lambda *rest, **options: failed)
    assert not peers.install("pfl", harness.Console())
    assert capsys.readouterr().out == f"pfl: pip failed, see {odd}/pfl.log\n"
