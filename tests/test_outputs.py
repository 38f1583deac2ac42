"""An output that cannot be written is told in one line, which names its path."""

import sys

import pytest

from ecogen_jax.report import files
from scripts import compare, report, table
from tests.run_folders import make_run

BARS = """id,experiment,dataset,expression,direction,bar,judged,aim,quantity,unit
A,relay_cycle,mnist,seconds.train,<=,240,mean,,training time,s
"""


@pytest.fixture
def path(tmp_path):
    """A run, below a file of bars."""
    (tmp_path / "bars.csv").write_text(BARS)
    return make_run(tmp_path / "runs")


@pytest.fixture
def refused(monkeypatch, capsys):
    """Calls a script that ends with 2; returns its one line of stderr."""

    def call(script, *words):
        monkeypatch.setattr(sys, "argv", ["script.py", *map(str, words)])
        assert script.main() == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return call


def block(path):
    """Puts a file where a folder is to be, or the reverse."""
    if path.suffix:
        path.mkdir(parents=True)
    else:
        path.touch()


def test_a_file_is_tried_without_a_trace(tmp_path):
    new, old = tmp_path / "new.csv", tmp_path / "old.csv"
    old.write_text("a table")
    for path in (new, old):
        files.check_output("--csv", path)
    assert not new.exists()
    assert old.read_text() == "a table"


def test_a_folder_is_tried_without_a_trace(tmp_path):
    folder = tmp_path / "attacks"
    files.check_folder(folder)
    assert not folder.exists()
    folder.mkdir()
    files.check_folder(folder)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("flag", ["--csv", "--markdown"])
def test_a_disk_that_is_full_after_a_comparison(path, refused, flag):
    line = refused(compare, path, flag, "/dev/full")
    assert line.startswith("error: /dev/full cannot be read or written (No space left")


@pytest.mark.parametrize("name", ["plots", "plots/accuracy.png", "report.html"])
def test_the_plots_and_the_page_of_a_run(path, refused, name):
    block(path / name)
    line = refused(report, path)
    assert line.startswith(f"error: {path}/{name} cannot be read or written (")
    assert "clear the path" in line


@pytest.mark.parametrize("name", ["tables", "tables/bars.md", "tables/bars.csv"])
def test_the_table_of_bars(path, tmp_path, refused, name):
    block(tmp_path / name)
    line = refused(table, tmp_path / "bars.csv", path)
    assert line.startswith(f"error: {tmp_path}/{name} cannot be read or written (")


def test_a_file_is_put_whole_or_not_at_all(tmp_path):
    path = tmp_path / "table.csv"
    files.put(path, "the first\n")

    def half(to):
        to.write_text("half a")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        files.put(path, half)
    assert path.read_text() == "the first\n"
    files.put(path, lambda to: to.write_text("the second\n"))
    assert path.read_text() == "the second\n"
    assert list(tmp_path.iterdir()) == [path]
