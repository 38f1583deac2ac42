"""The command line: what is wrong is said in one line, before anything is written."""

import errno
import os
import subprocess
import sys

import pytest

from ecogen_jax import distributed, mesh
from ecogen_jax.data import sources
from ecogen_jax.report import html, plots
from ecogen_jax.run import loop, sweep, writer
from scripts import train

SMOKE = "configs/quickstart.py:smoke"


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Runs the script in this process; returns its status and both outputs."""
    # The devices of this process are started already.
    monkeypatch.setattr(mesh, "start", lambda num_devices: None)

    def run(*words, config=SMOKE):
        workdir = f"--config.run.workdir={tmp_path / 'runs'}"
        words = ["scripts/train.py", "--config", config, workdir, *words]
        monkeypatch.setattr(sys, "argv", words)
        status = train.main()
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("overrides", "field", "value", "allowed", "nearest"),
    [
        ("data.alhpa=1", "data.alhpa", "1", "fields and sections", "data.alpha"),
        ("data.name=mnits", "data.name", "'mnits'", "fashion_mnist", "mnist"),
        ("nets.edge=cnn_medum", "nets.edge", "'cnn_medum'", "one of", "cnn_medium"),
        ("up_end_edge.distiller=rely", "up_end_edge.distiller", "'rely'", "", "relay"),
        ("protocol.name=cycle", "protocol.name", "'cycle'", "", "relay_cycle"),
        ("data=3", "data", "3", "a field of this section: data.alpha", ""),
        ("data.alpha=0", "data.alpha", "0.0", "a number above 0, in float32", ""),
        ("data.alpha=1e-40", "data.alpha", "1e-40", "a number above 0, in float32", ""),
        (
            "data.alpha=0.001 topology.devices_per_edge=20",
            "data.alpha",
            "0.001",
            "a batch of private images",
            "",
        ),
        ("seed=one", "seed", "'one'", "type int", ""),
        ("local.batch_size=2000", "topology.devices_per_edge", "2", "2000", ""),
        ("topology.devices_per_edge=1000", "topology.devices_per_edge", "1000", "", ""),
        (
            "data.public_missing_classes=(10,)",
            "data.public_missing_classes",
            "(10,)",
            "below 10",
            "",
        ),
        (
            "data.public_missing_classes=(0,1,2,3,4,5,6,7,8,9)",
            "data.public_missing_classes",
            "(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)",
            "not all",
            "",
        ),
    ],
)
def test_a_mistake_is_refused_in_one_line_before_any_work(
    call, tmp_path, overrides, field, value, allowed, nearest
):
    words = [f"--config.{override}" for override in overrides.split()]
    status, out, err = call(*words)
    assert status == 2
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"error: {field} = {value} is refused; allowed: ")
    assert allowed in line
    assert (f"Did you mean '{nearest}'?" in line) == bool(nearest)
    assert not (tmp_path / "runs").exists()


def test_a_missing_config_names_the_nearest(call):
    status, _, err = call(config="configs/quikstart.py")
    assert status == 2
    assert "Did you mean 'configs/quickstart.py'?" in err


def test_brackets_in_a_message_are_printed_as_they_are(call):
    status, _, err = call("--config.seed=-1")
    assert status == 2
    assert "an integer in [0, 2**32)" in err
    _, _, err = call("--config.data.name=[bold]mnist")
    assert "'[bold]mnist'" in err


def test_an_integer_beyond_every_float_is_refused(call):
    status, _, err = call(f"--config.data.alpha={10**400}")
    assert status == 2
    assert err.startswith("error: data.alpha = 'an integer of that length' is refused")


@pytest.mark.parametrize(
    "words", [("--conf.data.alpha=1",), ("data.alpha=1",), ("--seed", "1")]
)
def test_stray_words_are_refused(call, capsys, words):
    with pytest.raises(SystemExit) as stopped:
        call(*words)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert words[0] in error
    assert "--config.FIELD=VALUE" in error


def test_data_that_no_provider_has_is_one_error(call, monkeypatch, tmp_path):
    def load(name, folder):
        raise sources.DataUnavailableError(f"{name}: [hub] tried, and no answer")

    monkeypatch.setattr(sources, "load", load)
    status, out, err = call()
    assert (status, out) == (2, "")
    assert err == "error: fake: [hub] tried, and no answer\n"
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_ends_a_run_with_one_line(call, monkeypatch):
    def run(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "run", run)
    assert call() == (130, "", "stopped; the same command goes on where it was\n")


def test_a_run_that_was_stopped_before_its_report_is_only_reported(
    call, monkeypatch, finished
):
    page = finished.path / "report.html"
    whole = page.read_text()
    page.unlink()
    monkeypatch.setattr(sweep, "newest", lambda config: finished.path)
    monkeypatch.setattr(loop, "run", lambda config: pytest.fail("it is finished"))
    status, out, _ = call()
    assert status == 0
    assert out.startswith(f"run folder  {finished.path}, finished; its report follows")
    assert page.read_text() == whole
    # With several processes, process 0 looks and tells; the others print nothing.
    page.unlink()
    monkeypatch.setattr(distributed, "text_from_main", lambda text: "a/run")
    monkeypatch.setattr(distributed, "is_main", lambda: False)
    assert call() == (0, "", "")
    page.write_text(whole)


def test_a_damaged_run_without_a_report_is_one_error(call, monkeypatch, finished):
    def damaged(run):
        raise ValueError("samples.npz is damaged")

    monkeypatch.setattr(loop, "run", lambda config: finished.path)
    monkeypatch.setattr(plots, "write_all", damaged)
    status, _, err = call()
    assert (status, err) == (2, "error: samples.npz is damaged\n")


def test_a_folder_in_the_place_of_a_file_is_one_error(call, monkeypatch):
    def run(config):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), "a/.lock")

    monkeypatch.setattr(loop, "run", run)
    status, _, err = call()
    assert status == 2
    assert err.startswith("error: a/.lock cannot be written (Is a directory); fix that")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_a_run_with_one_line(call, monkeypatch, tmp_path, number):
    def full(config):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(loop, "run", full)
    status, _, err = call()
    assert (status, err) == (
        2,
        f"error: no space left for {tmp_path / 'runs'} ({os.strerror(number)}); make "
        "room and give the same command, which goes on from the last checkpoint\n",
    )


def test_a_full_disk_under_the_plots_does_not_ask_for_another_run(
    call, monkeypatch, finished
):
    def full(run):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(loop, "run", lambda config: finished.path)
    monkeypatch.setattr(html, "write", full)
    monkeypatch.setattr(plots, "write_all", lambda run: [])
    status, _, err = call()
    assert status == 2
    assert err.endswith(
        f"make room and give python scripts/report.py {finished.path}\n"
    )


def test_any_other_error_of_a_file_is_raised(call, monkeypatch):
    def failing(config):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(loop, "run", failing)
    with pytest.raises(OSError, match="Input/output error"):
        call()


def test_a_run_that_diverges_ends_with_one_error_and_no_summary(call, tmp_path):
    status, _, err = call("--config.pretrain.learning_rate=1e38")
    assert status == 3
    assert err.startswith("error: ")
    assert "stage pretrain" in err
    assert not list(tmp_path.glob("runs/*/*/summary.json"))


def test_help_shows_an_example():
    done = subprocess.run(
        [sys.executable, "scripts/train.py", "--help"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "python scripts/train.py --config configs/quickstart.py" in done.stdout
    assert "--config.data.alpha=0.1" in done.stdout


def test_the_folder_of_a_run_is_printed_as_it_is_opened(tmp_path, capsys):
    for end in ("", ", resumed"):
        with train.run_folder_shown(), writer.open_run(tmp_path, "x", 0, {}) as run:
            assert capsys.readouterr().out == f"run folder  {run.path}{end}\n"


# What a run prints.


def test_a_run_begins_with_its_folder(finished):
    assert finished.printed.splitlines()[0] == f"run folder  {finished.path}"


def test_tables_of_a_run_fit_a_terminal_of_80_columns(finished):
    lines = finished.printed.splitlines()
    assert max(len(line) for line in lines if str(finished.path) not in line) <= 80
    assert "…" not in finished.printed


def test_a_run_ends_with_its_accuracy_its_cost_and_its_folder(finished):
    for text in ("Test accuracy (%)", "Ledger", "up 2", "edge_end", "local only"):
        assert text in finished.printed
    last = finished.printed.splitlines()[-3:]
    assert [line.split()[0] for line in last] == ["run", "plot", "report"]
    assert str(finished.path) in last[0]
    assert last[-1].endswith(f"{finished.path}/report.html")
