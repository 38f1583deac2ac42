"""The suite's side of the benchmark: starts workers and lets them take turns."""

import contextlib
import json
import os
import pathlib
import resource
import select
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from benchmarks import peers
from benchmarks.speaker import SAMPLE_S

ROOT = pathlib.Path(__file__).parents[1]
PATIENCE_S = 3600.0
"""Nobody needs so long to start or for one sample; whoever does has failed."""

MEMORY_SHARE = 0.75
"""Of the machine's memory: a worker that takes more fails alone, not the machine."""

TOLD_LAST = ("JAX_TRACEBACK_FILTERING", "off")
"""Environment variable: without it, the last line of an error in JAX is a notice."""

_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Worker(NamedTuple):
    """One thing to time, see `speaker`.

    Attributes:
        name: unique in its group.
        command: module and arguments, such as `("benchmarks.ours.hop", "small")`.
        python: the peer in whose environment it runs, or "" for this one.
        starts: 0 for a worker that stays and gives one sample after another; else how
            many are started for each sample, with their seconds added up.
        env: environment variables; "{scratch}" in a value is a folder of the group's.
    """

    name: str
    command: tuple[str, ...]
    python: str = ""
    starts: int = 0
    env: tuple[tuple[str, str], ...] = ()


class Samples(NamedTuple):
    """Samples of a worker: seconds of one unit, one entry per turn.

    Attributes:
        seconds: by the group's clock.
        about: versions by package.
    """

    seconds: list[float]
    about: dict[str, str]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)


class WorkerError(RuntimeError):
    """A worker cannot be started, or has ended; the message says how."""


class Turns(NamedTuple):
    """How workers take turns.

    Attributes:
        repeats: samples of each.
        clock: `cpu_s` or `wall_s`.
        cores: how many they may use, all of them the same ones.
        sample_s: see `speaker.SAMPLE_S`.
        logs: the folder for what workers write to their standard error.
        anew: how often all workers are started, and give `repeats` samples each.
    """

    repeats: int
    clock: str
    cores: int
    sample_s: float
    logs: pathlib.Path
    anew: int = 1


def take_turns(
    workers: Sequence[Worker], turns: Turns
) -> dict[str, Samples | WorkerError]:
    """Times workers in turn: A B C A B C.

    Args:
        workers: who; each is warmed up before the first turn.
        turns: how.

    Returns:
        By worker, its samples; or the error that ended it, while the others continue.
    """
    found: dict[str, Samples | WorkerError] = {}
    for _ in range(turns.anew):
        with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
            seats = {worker.name: _Seat(worker, turns, scratch) for worker in workers}
            try:
                _take_turns(seats, turns.repeats, found)
            finally:
                for seat in seats.values():
                    seat.stop()
    return found


def _take_turns(
    seats: dict[str, "_Seat"], repeats: int, found: dict[str, Samples | WorkerError]
) -> None:
    """Starts the workers that have not failed yet, and adds to their samples."""
    for name, seat in seats.items():
        if not isinstance(found.get(name), WorkerError):
            started = _or_error(seat, seat.start)
            failed = isinstance(started, WorkerError)
            found[name] = started if failed else found.get(name, started)
    for _ in range(repeats):
        for name, seat in seats.items():
            samples = found[name]
            if isinstance(samples, Samples):
                found[name] = _or_error(seat, seat.sample, samples)


def _or_error(
    seat: "_Seat", act: Callable[..., Samples], *arguments: Samples
) -> Samples | WorkerError:
    try:
        return act(*arguments)
    except WorkerError as error:
        seat.stop()
        return error


class _Seat:
    """One worker and its process."""

    def __init__(self, worker: Worker, turns: Turns, scratch: str) -> None:
        self.worker, self.turns, self.scratch = worker, turns, scratch
        self.log = turns.logs / f"{worker.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Samples:
        """Starts the worker and waits for it; one that starts anew does so once."""
        about = self._launch()
        if self.worker.starts:
            self._ask()
            self.stop()
        return Samples([], about)

    def sample(self, samples: Samples) -> Samples:
        """One more sample."""
        clock = self.turns.clock
        if not self.worker.starts:
            seconds = self._ask()[clock]
        else:
            seconds = 0.0
            for _ in range(self.worker.starts):
                self._launch()
                seconds += self._ask()[clock]
                self.stop()
        return samples._replace(seconds=[*samples.seconds, seconds])

    def stop(self) -> None:
        """Ends the worker and all processes that it started."""
        process, self.process = self.process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()  # no more requests: it ends by itself
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        with contextlib.suppress(ProcessLookupError):  # no process is left
            os.killpg(process.pid, signal.SIGTERM)
        process.stdout.close()

    def _launch(self) -> dict[str, str]:
        python = peers.interpreter(self.worker.python) if self.worker.python else None
        if self.worker.python and python is None:
            raise WorkerError(f"{self.worker.python} is not installed")
        env = {name: value.format(scratch=self.scratch) for name, value in self._env()}
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log, self._pinned():
            self.process = subprocess.Popen(
                [str(python or sys.executable), "-m", *self.worker.command],
                cwd=ROOT,
                env=os.environ | env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                start_new_session=True,
            )
        most = int(
            MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
        )
        resource.prlimit(self.process.pid, resource.RLIMIT_DATA, (most, most))
        return self._hear()["about"]

    def _env(self) -> list[tuple[str, str]]:
        # With one process per core, as peers use, each process has one thread.
        threads = [(name, "1") for name in _ONE_THREAD]
        sample_s = (SAMPLE_S, str(self.turns.sample_s))
        told = (TOLD_LAST, ("PYTHONPATH", str(ROOT)))
        return [*threads, sample_s, *told, *self.worker.env]

    @contextlib.contextmanager
    def _pinned(self) -> Iterator[None]:
        """Keeps this thread on the worker's cores, which a process inherits."""
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[-self.turns.cores :])
        try:
            yield
        finally:
            os.sched_setaffinity(0, cores)

    def _ask(self) -> dict[str, float]:
        assert self.process is not None
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(b"\n")
        except BrokenPipeError as error:
            raise self._failure() from error
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        """The next line of the worker."""
        assert self.process is not None
        assert self.process.stdout is not None
        stdout = self.process.stdout
        if not select.select([stdout], [], [], PATIENCE_S)[0]:
            raise WorkerError(f"said nothing for {PATIENCE_S:.0f} s")
        line = stdout.readline()
        if not line:
            raise self._failure()
        return json.loads(line)

    def _failure(self) -> WorkerError:
        assert self.process is not None
        code = self.process.wait()
        return failure(code, self.log.read_text(errors="replace"))


def failure(code: int, said: str) -> WorkerError:
    """How a process ended.

    Args:
        code: with which it ended.
        said: its standard error.

    Returns:
        The signal that ended it, or else the last line that it said.
    """
    if code < 0:
        return WorkerError(f"killed by {signal.Signals(-code).name}")
    lines = said.strip().splitlines()
    return WorkerError(lines[-1].strip() if lines else f"ended with code {code}")
