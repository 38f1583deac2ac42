"""Several processes on this machine make the run that one process makes."""

import os
import signal
import socket
import subprocess
import sys
import types
from contextlib import ExitStack
from pathlib import Path

import jax
import pytest

from ecogen_jax import distributed
from ecogen_jax.config import ConfigError
from ecogen_jax.run import command
from tests.equal_runs import assert_same_run

SCAFFOLD = "configs/federated/scaffold.py:smoke"
CYCLE = "configs/relay_cycle.py:smoke"
TRAIN = ("scripts.train",)
PATIENCE_S = 60
"""How long the others may go on when a process has died."""


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def joined(count):
    """Flags of each of `count` processes on this machine."""
    address = f"127.0.0.1:{free_port()}"
    every = ("--coordinator_address", address, "--num_processes", f"{count}")
    return [[*every, "--process_id", f"{number}"] for number in range(count)]


def training(workdir, spec, num_devices):
    overrides = {"run.workdir": workdir, "mesh.num_devices": num_devices}
    if spec == SCAFFOLD:
        overrides |= {"federated.rounds": 3, "federated.active": 4, "nets.cloud": "mlp"}
        overrides |= {"nets.edge": "mlp", "nets.end": "mlp"}
        # So that there is something for each device of the federation.
        overrides |= {"federated.compression": "int8"}
    words = [f"--config.{name}={value}" for name, value in overrides.items()]
    return ["--config", spec, *words]


class Processes:
    """Python modules run side by side; what is left at the end of a block is killed."""

    def __init__(self, folder, commands, environments=None):
        environments = environments or [{}] * len(commands)
        self.outputs = [folder / f"{number}.txt" for number in range(len(commands))]
        self.started = []
        with ExitStack() as files:
            for output, words, own in zip(
                self.outputs, commands, environments, strict=True
            ):
                file = files.enter_context(output.open("w"))
                self.started.append(
                    subprocess.Popen(
                        [sys.executable, "-m", *words],
                        env=os.environ | own,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.started:
            process.kill()
            process.wait()

    def wait(self, number, timeout=None):
        """The status and the output of one of them at its end."""
        status = self.started[number].wait(timeout)
        return status, self.outputs[number].read_text()


def succeed(folder, commands, environments=None):
    """Runs all to their end; returns what each has printed."""
    with Processes(folder, commands, environments) as processes:
        ended = [processes.wait(number) for number in range(len(commands))]
    for status, printed in ended:
        assert status == 0, printed
    return [printed for _, printed in ended]


def train(folder, count, spec, num_devices):
    """A run by `count` processes; returns its folder and what they printed."""
    words = training(folder / "runs", spec, num_devices)
    flags = joined(count) if count > 1 else [[]]
    printed = succeed(folder, [[*TRAIN, *own, *words] for own in flags])
    return only_run(folder), printed


def only_run(folder):
    (path,) = folder.glob("runs/*/*")
    return path


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """A federation in one process, on four devices."""
    return train(tmp_path_factory.mktemp("straight"), 1, SCAFFOLD, 4)[0]


def test_processes_tell_each_other_what_they_have_to(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    succeed(tmp_path, [("tests.joined", address, str(me)) for me in range(2)])


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(straight, tmp_path):
    path, (main, other) = train(tmp_path, 2, SCAFFOLD, 4)
    assert_same_run(path, straight, times_resumed=0)
    assert "Test accuracy" in main
    assert [line for line in other.splitlines() if "[Gloo]" not in line] == []
    # Both wrote their parts of the state.
    writers = {p.name for p in path.glob("checkpoints/2/state/ocdbt.process_*")}
    assert writers == {"ocdbt.process_0", "ocdbt.process_1"}


@pytest.mark.slow
def test_four_processes_that_slurm_started_make_the_run_of_one(straight, tmp_path):
    words = [*TRAIN, "--distributed", *training(tmp_path / "runs", SCAFFOLD, 4)]
    slurm = {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": "4",
        "JAX_COORDINATOR_PORT": f"{free_port()}",
    }
    own = [{"SLURM_PROCID": f"{n}", "SLURM_LOCALID": f"{n}"} for n in range(4)]
    succeed(tmp_path, [words] * 4, [slurm | each for each in own])
    assert_same_run(only_run(tmp_path), straight, times_resumed=0)


@pytest.mark.slow
def test_two_processes_make_the_relay_cycle_of_one(finished, tmp_path):
    path, _ = train(tmp_path, 2, CYCLE, 2)
    assert_same_run(path, finished.path, times_resumed=0)


@pytest.mark.slow
@pytest.mark.parametrize(("dies", "count"), [(0, 1), (1, 2)])
def test_a_killed_process_ends_the_run_and_any_number_take_it_up(
    straight, tmp_path, dies, count
):
    words, flags = training(tmp_path / "runs", SCAFFOLD, 4), joined(2)
    # In the third round: the first checkpoint is whole, since the second waited for it.
    killed = ("tests.killed_train", "line", "7")
    modules = [killed if number == dies else TRAIN for number in range(2)]
    commands = [
        [*module, *own, *words] for module, own in zip(modules, flags, strict=True)
    ]
    with Processes(tmp_path, commands) as processes:
        status, printed = processes.wait(dies)
        assert status == -signal.SIGKILL, printed
        status, printed = processes.wait(1 - dies, PATIENCE_S)
    assert status not in (0, -signal.SIGKILL)
    # Whichever comes first: the exchange that broke off, or JAX's own watch.
    assert "another process has died" in printed or "another task died" in printed
    path = only_run(tmp_path)
    assert not (path / "summary.json").exists()
    assert train(tmp_path, count, SCAFFOLD, 4)[0] == path
    assert_same_run(path, straight, times_resumed=1)


# What one process can be asked about.


@pytest.fixture
def read(monkeypatch):
    """Reads a command line as one of three processes would; JAX is left alone."""

    def checked(fits, message):
        assert fits, message

    monkeypatch.setattr(distributed, "start", lambda *given: None)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(distributed, "text_from_main", lambda text: text)
    monkeypatch.setattr(distributed, "check_everywhere", checked)
    monkeypatch.setattr("ecogen_jax.mesh.start", lambda num_devices: None)

    def run(*words):
        words = ["train.py", "--config", SCAFFOLD, "--distributed", *words]
        monkeypatch.setattr(sys, "argv", words)
        return command.join_and_read_config("")

    return run


def test_a_config_has_to_suit_the_processes(read):
    with pytest.raises(ConfigError, match=r"num_devices = 2 .* 3 or more, one"):
        read()
    with pytest.raises(ConfigError, match=r"backend = 'vmap' .* auto or shard_map"):
        read("--config.mesh.num_devices=3", "--config.mesh.backend=vmap")
    assert read("--config.mesh.num_devices=6").mesh.num_devices == 6


def test_processes_with_different_numbers_of_devices_are_refused(read, monkeypatch):
    words = "--config.mesh.num_devices=6"
    devices = [types.SimpleNamespace(process_index=p) for p in (0, 0, 1, 2, 2, 1)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    assert read(words).mesh.num_devices == 6
    devices.pop()
    # No exchange comes before: it would fail, for just that reason.
    monkeypatch.setattr(distributed, "text_from_main", pytest.fail)
    wanted = r"\(process 0 has 2, process 1 has 1, process 2 has 2\): start all with"
    with pytest.raises(distributed.JoinError, match=wanted):
        read(words)


def test_flags_without_a_coordinator_are_refused_in_one_line(tmp_path):
    words = [*TRAIN, "--num_processes", "2", *training(tmp_path / "runs", SCAFFOLD, 2)]
    with Processes(tmp_path, [words]) as processes:
        status, printed = processes.wait(0)
    assert status == 2
    (line,) = printed.splitlines()
    assert line.startswith("error: the processes of the run could not be joined: ")
    assert "--coordinator_address" in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "address",
    ["", "127.0.0.1", ":1234", "foo:", "foo:bar", "foo:-1", "foo:0", "foo:65536"],
)
def test_an_address_of_another_form_is_refused_before_jax_sees_it(monkeypatch, address):
    seen = []

    def initialize(address, *rest, **options):
        seen.append(address)

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    message = f"--coordinator_address is {address!r}: allowed is HOST:PORT, .* such as"
    with pytest.raises(distributed.JoinError, match=message):
        distributed.start(address, 2, 0)
    assert seen == []
    good = ["localhost:1234", "[::1]:65535", None]
    for each in good:
        distributed.start(each, 2, 0)
    assert seen == good


def test_an_error_of_all_processes_passes_and_any_other_ends_this_one(monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with pytest.raises(KeyError), distributed.ending_at_once():
        raise KeyError("alone")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(KeyError), distributed.ending_at_once(KeyError):
        raise KeyError("foreseen")
    with distributed.ending_at_once(KeyError):
        raise OSError("disk full")
    assert ended == [1]


def test_the_last_words_name_the_process_the_error_and_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(os, "_exit", lambda status: None)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with distributed.ending_at_once():
        raise OSError("disk full")
    printed = capsys.readouterr().err
    assert "OSError: disk full" in printed
    assert "error: process 0 of 2 stopped: disk full" in printed
    assert "The same command takes the run up" in printed
