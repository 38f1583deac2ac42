import itertools
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ecogen_jax import config as configs
from ecogen_jax.run import command, sweep, writer
from scripts import sweep as script

CONFIG = """
from ecogen_jax import config as configs

def get_config(arg=""):
    return configs.default()
"""

# Stands in for scripts/train.py: fails for seed 1, finishes every other run.
TRAIN = """
import sys
from ecogen_jax import config as configs
from ecogen_jax.run import writer

prefix = "--config."
overrides = [a[len(prefix):] for a in sys.argv if a.startswith(prefix)]
config = configs.load(sys.argv[2], overrides)
print("running", overrides)
if config.seed == 1:
    sys.exit("broken on purpose")
if config.seed != 2:
    fields = (config.run.workdir, config.experiment, config.seed)
    with writer.open_run(*fields, configs.to_dict(config)) as run:
        writer.write_json(run.path / "summary.json", {})
"""


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(TRAIN)
    Path("x.py").write_text(CONFIG)
    return "x.py"


def run(cells):
    return list(sweep.run(cells, Path("train.py"), lambda cell: None))


def finish(cell):
    config = configs.load(*cell)
    fields = (config.run.workdir, config.experiment, config.seed)
    with writer.open_run(*fields, configs.to_dict(config)) as folder:
        writer.write_json(folder.path / "summary.json", {})
        (folder.path / "report.html").touch()
    return folder.path


def test_grid_times_seeds():
    grid = ["data.name=mnist,usps", "data.public_missing_classes=(),(8,9)"]
    cells = sweep.cells("x.py", [0, 1], grid, ["run.workdir=out"])
    names = ("data.name=mnist", "data.name=usps")
    missing = ("data.public_missing_classes=()", "data.public_missing_classes=(8,9)")
    wanted = itertools.product(
        ["run.workdir=out"], names, missing, ["seed=0", "seed=1"]
    )
    assert [cell.overrides for cell in cells] == list(wanted)


@pytest.mark.parametrize(
    ("listed", "values"),
    [
        ("'cnn_medium,mlp',cnn_small", ["'cnn_medium,mlp'", "cnn_small"]),
        ('mlp,"mlp,lenet5"', ["mlp", '"mlp,lenet5"']),
        ("(8,9),[1,(2,3)],()", ["(8,9)", "[1,(2,3)]", "()"]),
        ("('a,)','b'),c", ["('a,)','b')", "c"]),
        ("it's,b", ["it's", "b"]),
        ("a),b", ["a)", "b"]),
        ("'','a'", ["''", "'a'"]),
    ],
)
def test_a_comma_inside_brackets_or_quotes_does_not_split(listed, values):
    cells = sweep.cells("x.py", [0], [f"nets.end={listed}"])
    assert [cell.overrides[0] for cell in cells] == [f"nets.end={v}" for v in values]


def test_a_field_of_several_nets_can_be_swept():
    axis = "nets.end='cnn_medium,mlp',cnn_small"
    cells = sweep.cells("configs/hops/c2.py", [0], [axis])
    nets = [configs.load(*cell).nets.end for cell in cells]
    assert nets == ["cnn_medium,mlp", "cnn_small"]


@pytest.mark.parametrize("axis", ["data.name", "=3", "data.name="])
def test_bad_axis_is_named(axis):
    with pytest.raises(ValueError, match=f"grid axis '{axis}' is not of the form"):
        sweep.cells("x.py", [0], [axis])


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (["seed=1,2"], "by --seeds"),
        (["data.alpha=0.1", "data.alpha=0.5"], "two axes of data.alpha"),
    ],
)
def test_an_axis_that_would_be_lost_is_refused(grid, message):
    with pytest.raises(ValueError, match=message):
        sweep.cells("x.py", [0], grid)


def test_a_long_name_of_a_log_is_cut_and_stays_its_own():
    long = tuple(f"down_cloud_edge.field{n}=0.02" for n in range(20))
    cells = [sweep.Cell("x.py", (*long, f"seed={seed}")) for seed in (0, 1)]
    names = {sweep.log_path(cell, "runs").name for cell in cells}
    assert len(names) == 2
    assert max(map(len, names)) < 200


def test_command_is_what_a_user_would_type():
    cell = sweep.Cell("x.py:smoke", ("data.alpha=0.1", "seed=2"))
    assert sweep.command(Path("scripts/train.py"), cell) == [
        sys.executable,
        "scripts/train.py",
        "--config",
        "x.py:smoke",
        "--config.data.alpha=0.1",
        "--config.seed=2",
    ]


def test_finished_cells_are_skipped_and_other_configs_are_not(spec):
    cells = sweep.cells(spec, [0], ["data.alpha=0.1,1.0"])
    path = finish(cells[0])
    assert sweep.finished_run(cells[0]).samefile(path)
    assert sweep.finished_run(cells[1]) is None
    (result,) = run(cells[:1])
    assert result.status == "skipped"
    assert not Path("runs/sweep-logs").exists()


def test_a_cell_that_was_stopped_before_its_report_is_given_to_the_script(spec):
    (cell,) = sweep.cells(spec, [0], [])
    (finish(cell) / "report.html").unlink()
    (result,) = run([cell])
    assert result.status == "done"


@pytest.mark.slow
def test_sigterm_ends_the_sweep_and_the_run_of_its_cell(spec):
    waits = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    Path("train.py").write_text(waits)
    code = (
        "import sys; sys.argv = ['sweep.py', '--config', 'x.py', '--seeds', '0'];"
        "from scripts import sweep; sweep.__file__ = 'sweep.py'; sys.exit(sweep.main())"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    logs = Path("runs/sweep-logs")
    try:
        deadline = time.monotonic() + 60
        while not (list(logs.glob("*.log")) and next(logs.iterdir()).read_text()):
            assert started.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        started.terminate()
        _, error = started.communicate(timeout=30)
    finally:
        started.kill()
    assert (started.returncode, error.decode()) == (130, f"{command.STOPPED}\n")
    with pytest.raises(ProcessLookupError):
        os.kill(int(next(logs.iterdir()).read_text()), 0)


def test_a_failed_cell_does_not_end_the_sweep(spec):
    failed, done = run(sweep.cells(spec, [1, 0], []))
    assert (failed.status, done.status) == ("failed", "done")
    assert "broken on purpose" in failed.where.read_text()
    assert writer.is_finished(done.where)


def test_exit_status_0_without_a_run_is_a_failure(spec):
    (result,) = run(sweep.cells(spec, [2], []))
    assert result.status == "failed"
    assert "no finished run of this config" in result.where.read_text()


def test_a_typo_stops_the_sweep_before_any_work(spec):
    cells = sweep.cells(spec, [0], ["data.alpha=0.1", "data.nam=mnist"])
    wrong = sweep.cells(spec, [0], ["data.name=mnits"])
    good = sweep.cells(spec, [0], [])
    with pytest.raises(ValueError, match=r"data\.nam"):
        run(good + cells)
    with pytest.raises(ValueError, match=r"data\.name = 'mnits'"):
        run(good + wrong)
    assert not Path("runs").exists()


def test_logs_of_different_cells_differ():
    specs, seeds = ("a/x.py", "a/x.py:smoke", "b/x.py"), (0, 1)
    cells = [sweep.Cell(s, (f"seed={k}",)) for s in specs for k in seeds]
    # The same but for a character that no name of a file has.
    cells += [sweep.Cell("a/x.py", (f"data.domains={d}",)) for d in ("('a')", "['a']")]
    paths = {sweep.log_path(cell, "runs") for cell in cells}
    assert len(paths) == len(cells)
    assert {path.parent for path in paths} == {Path("runs/sweep-logs")}
    assert sweep.log_path(cells[0], "runs").name.startswith("x.py_seed=0-")


def test_logs_below_a_tilde_are_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = sweep.log_path(sweep.Cell("x.py", ("seed=0",)), "~/runs")
    assert path.parent == tmp_path / "runs" / "sweep-logs"


def test_script_runs_the_grid_and_reports_failure(spec, monkeypatch, capsys):
    monkeypatch.setattr(script, "__file__", str(Path("sweep.py").absolute()))
    arguments = ["--config", spec, "--seeds", "0,1", "--workdir", "out"]
    monkeypatch.setattr(sys, "argv", ["sweep.py", *arguments])
    monkeypatch.setenv("COLUMNS", "80")
    assert script.main() == 1
    printed = capsys.readouterr().out
    assert "done" in printed
    assert "failed" in printed
    assert len(list(Path("out/sweep-logs").iterdir())) == 2


def test_a_workdir_that_is_a_file_is_told_in_one_line(spec, monkeypatch, capsys):
    words = ["--config", spec, "--seeds", "0", "--workdir", spec]
    monkeypatch.setattr(sys, "argv", ["sweep.py", *words])
    assert script.main() == 2
    assert capsys.readouterr().err.startswith("error: run.workdir = 'x.py' is refused;")


@pytest.mark.parametrize("blocked", ["sweep-logs", "log"])
def test_a_log_that_cannot_be_written_is_told_in_one_line(
    spec, monkeypatch, capsys, blocked
):
    (cell,) = sweep.cells(spec, [0], [], ["run.workdir=out"])
    log = sweep.log_path(cell, "out")
    if blocked == "log":
        log.mkdir(parents=True)
    else:
        Path("out").mkdir()
        log.parent.touch()
    words = ["--config", spec, "--seeds", "0", "--workdir", "out"]
    monkeypatch.setattr(sys, "argv", ["sweep.py", *words])
    assert script.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: run.workdir = 'out' is refused;")
    assert str(log if blocked == "log" else log.parent) in line


def test_ctrl_c_ends_a_sweep_with_one_line(spec, monkeypatch, capsys):
    def run(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["sweep.py", "--config", spec, "--seeds", "0"])
    assert script.main() == 130
    assert capsys.readouterr().err == "stopped; the same command goes on where it was\n"


def test_no_path_of_a_sweep_is_cut(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    cell = sweep.Cell("x.py", (f"run.workdir={'a' * 50}", f"data.name={'b' * 50}"))
    done, log = (Path("/") / "/".join([name * 40] * 3) for name in "dl")
    script.show(
        [
            sweep.Result(cell, "done", 12.0, done),
            sweep.Result(cell, "failed", 3.0, log),
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [f"run folder  0   {done}", f"log         1   {log}"]
    assert sum(" ".join(cell.overrides) in line for line in lines) == 2


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ("0;1", "--seeds is '0;1': allowed are whole numbers between commas, such as"),
        ("0,x", "--seeds is '0,x': allowed are whole numbers"),
        ("", "--seeds is '': allowed are whole numbers"),
        ("0-2", "--seeds is '0-2': allowed are whole numbers"),
        ("0,1,0", r"--seeds is '0,1,0' and has \[0\] twice: name each once"),
    ],
)
def test_script_refuses_seeds_of_another_form(
    spec, monkeypatch, capsys, seeds, message
):
    monkeypatch.setattr(sys, "argv", ["sweep.py", "--config", spec, "--seeds", seeds])
    assert script.main() == 2
    assert re.match(f"error: {message}", capsys.readouterr().err)
    assert not Path("runs").exists()
