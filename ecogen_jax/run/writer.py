"""The run folder: opened or resumed, and written such that a kill is harmless.

A run lies in `<workdir>/<experiment>/<YYYYmmdd-HHMMSS>-seed<k>/` (UTC). It is
finished once it holds `summary.json`, which is therefore written last.
"""

import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import logging
import operator
import os
import platform
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax

from ecogen_jax import config_scope, distributed
from ecogen_jax.config import ConfigError, completed

_LOGGER = logging.getLogger(__name__)

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "ecogen_jax",
)


class RunFolder(NamedTuple):
    """A run folder that this process, or process 0 of a run of many, may write to.

    The folder is free again at the end of a `with` block over it, and at the latest
    when the process ends, however it ends.

    Attributes:
        path: the folder.
        resumed: whether an unfinished run was taken up again.
        lock: the open lock file; None where process 0 holds it.
        metrics: `metrics.jsonl`, open to be added to, since opening it takes as long
            as a small round's lines; None where process 0 writes it.
    """

    path: Path
    resumed: bool
    lock: IO[str] | None = None
    metrics: IO[bytes] | None = None

    def __enter__(self) -> "RunFolder":
        """Returns the folder, which is locked since it was opened."""
        return self

    def __exit__(self, *error: object) -> None:
        """Lets the folder go."""
        with contextlib.ExitStack() as files:  # the lock is released last
            if self.lock:
                files.callback(self.lock.close)
            if self.metrics:
                files.callback(self.metrics.close)


def open_run(
    workdir: str | Path, experiment: str, seed: int, config: Mapping[str, Any]
) -> RunFolder:
    """Resumes the newest unfinished run of this config, or starts a new one.

    Args:
        workdir: the folder of all runs.
        experiment: name of the experiment, one folder below `workdir`.
        seed: the run's seed.
        config: the resolved config; has to be JSON-able.

    Returns:
        The locked folder. A run that another process is writing is left alone.

    Raises:
        ConfigError: no folder can be made in `workdir`, in each process.
        JoinError: the processes of the run do not all see the folder.
    """
    run: RunFolder | None = None
    own: dict[str, Any] = {}
    if distributed.is_main():
        try:
            run = _open(workdir, experiment, seed, config)
            own = {"found": [str(run.path), run.resumed]}
        except ConfigError as error:  # the other processes wait for the result
            own = {"refused": [error.field, error.value, error.allowed]}
    told = json.loads(distributed.text_from_main(json.dumps(own)))
    if "refused" in told:
        raise ConfigError(*told["refused"])
    path, resumed = told["found"]
    distributed.check_everywhere(
        Path(path).is_dir(),
        f"the run folder {path} is not seen by all processes: give them one file "
        "system and, if run.workdir is relative, one working directory",
    )
    if run:
        _LOGGER.info("%-12s%s%s", "run folder", path, ", resumed" if resumed else "")
    return run or RunFolder(Path(path), resumed)


def _open(
    workdir: str | Path, experiment: str, seed: int, config: Mapping[str, Any]
) -> RunFolder:
    """`open_run` in the process that writes."""
    for path in find_runs(workdir, experiment, seed, config, finished=False):
        lock = _lock(path)
        if lock is None:
            _LOGGER.info("%s of this config is being written by another process", path)
            continue
        # The other process may have finished the run before it released the lock.
        if not is_finished(path):
            return _held(path, True, lock)
        lock.close()
    path = _create(workdir, experiment, seed)
    lock = _lock(path)
    if lock is None:
        raise RuntimeError(f"{path} was locked by another process; run again")
    # Written once the lock is held: without this file, the folder is not resumed.
    write_json(path / "config.json", config)
    return _held(path, False, lock)


def _held(path: Path, resumed: bool, lock: IO[str]) -> RunFolder:
    """A locked folder, its metrics without a buffer: no kill loses a line of them."""
    try:
        metrics = _metrics(path).open("ab", buffering=0)
    except OSError:
        lock.close()
        raise
    return RunFolder(path, resumed, lock, metrics)


def find_runs(
    workdir: str | Path,
    experiment: str,
    seed: int,
    config: Mapping[str, Any],
    *,
    finished: bool,
) -> Iterator[Path]:
    """Yields the folders of this config, newest first.

    Args:
        workdir: the folder of all runs.
        experiment: name of the experiment.
        seed: the run's seed.
        config: the resolved config; `config.json` has to be equal to it, except for
            `run.workdir` (the same folder has many names) and fields without effect.
            A field that it lacks has its default: it may be of a version before that
            field.
        finished: whether to look for finished or for unfinished runs.

    Yields:
        Run folders.

    Raises:
        ConfigError: `workdir` begins with the home folder of nobody.
    """
    wanted = _asked(_dumps(config))
    folders = (folder_of(workdir) / experiment).glob(f"*-seed{seed}")
    for path in sorted(folders, reverse=True):
        saved = path / "config.json"
        if is_finished(path) != finished or not saved.exists():
            continue
        try:
            same = _asked(saved.read_text()) == wanted
        except (LookupError, TypeError, ValueError, AttributeError):  # truncated
            _LOGGER.warning("%s is damaged, so its run is passed over", saved)
            continue
        if same:
            yield path


def _asked(config: str) -> dict[str, Any]:
    """What a `config.json` asks for, wherever its run is: fields that are read."""
    asked = completed(json.loads(config))
    asked["run"] = {**asked["run"], "workdir": ""}
    return config_scope.effective(asked)


def folder_of(workdir: str | Path) -> Path:
    """The folder of all runs: a shell leaves the `~` of `--config.run.workdir=~/runs`.

    Raises:
        ConfigError: nobody has that home folder.
    """
    try:
        return Path(workdir).expanduser()
    except RuntimeError as error:
        raise refused(workdir, error) from error


def refused(workdir: str | Path, error: Exception) -> ConfigError:
    """The error of a folder of all runs in which nothing can be made."""
    allowed = f"a folder to write runs to, or a free path for one ({error})"
    return ConfigError("run.workdir", str(workdir), allowed)


def is_finished(path: Path) -> bool:
    """Returns whether the run in `path` wrote its summary."""
    return (path / "summary.json").exists()


def write_json(path: Path, obj: Any) -> None:
    """Writes `obj` so that a reader sees the old file or the whole new one.

    Args:
        path: the file.
        obj: JSON-able; NumPy and JAX scalars are written as plain numbers.
    """
    _replace(path, _dumps(obj, indent=2) + "\n")


@distributed.main_only
def append_metrics(run: RunFolder, records: Sequence[Mapping[str, Any]]) -> None:
    """Adds lines to `metrics.jsonl`; they survive the end of this process.

    They survive a crash of the machine only after `sync_metrics`.

    Args:
        run: the run folder.
        records: JSON-able; NumPy and JAX scalars are written as plain numbers.

    Raises:
        OSError: they were not written, or not all of them; a resume cuts what is there
            at the last checkpoint.
    """
    assert run.metrics is not None
    data = "".join([_line(record) + "\n" for record in records]).encode()
    while data:  # a full disk takes a part before it reports the error
        data = data[run.metrics.write(data) :]


@distributed.main_only
def sync_metrics(run: RunFolder) -> None:
    """Forces the lines of `metrics.jsonl` to the disk, for a checkpoint after them.

    Lines after the last checkpoint are written again by a resume; syncing every round
    would take longer than a small round.
    """
    assert run.metrics is not None
    os.fsync(run.metrics.fileno())


@distributed.main_only
def truncate_metrics(run: RunFolder, num_lines: int) -> None:
    """Keeps the first lines of `metrics.jsonl`: a resume writes the others again.

    Args:
        run: the run folder.
        num_lines: how many lines the checkpoint had seen.

    Raises:
        ValueError: the file has fewer lines than that.
    """
    assert run.metrics is not None
    lines = _whole_lines(run.path)
    if len(lines) < num_lines:
        raise ValueError(
            f"{_metrics(run.path)} has {len(lines)} lines, but the checkpoint was "
            f"written after {num_lines}; put the file back, or delete the run folder "
            "to start over"
        )
    run.metrics.truncate(sum(map(len, lines[:num_lines])))
    os.fsync(run.metrics.fileno())


def manifest(seed: int, command: list[str], synthetic_data: bool) -> dict[str, Any]:
    """Returns the information to repeat the run: the content of `manifest.json`.

    Args:
        seed: the run's seed.
        command: `sys.argv` of the run.
        synthetic_data: whether the images are generated.

    Returns:
        Git commit and dirty flag of the source (None where it is not a checkout),
        versions, platform, number of processes, devices of all of them, seed, the
        command line and the time (UTC).
    """
    commit, dirty = git_state()
    return {
        "git_commit": commit,
        "git_dirty": dirty,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processes": jax.process_count(),
        "devices": [f"{device} ({device.device_kind})" for device in jax.devices()],
        "seed": seed,
        "command": shlex.join(["python", *command]),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "synthetic_data": synthetic_data,
    }


def _create(workdir: str | Path, experiment: str, seed: int) -> Path:
    """Makes a new folder, and those above it that are missing."""
    folder = folder_of(workdir) / experiment
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _create_in(folder, seed)
    except OSError as error:
        raise refused(workdir, error) from error


def _create_in(folder: Path, seed: int) -> Path:
    """Makes a new folder; where this second's name is taken, the next free one."""
    moment = datetime.datetime.now(datetime.UTC)
    while True:
        path = folder / f"{moment:%Y%m%d-%H%M%S}-seed{seed}"
        try:
            path.mkdir()
        except FileExistsError:
            moment += datetime.timedelta(seconds=1)
        else:
            return path


def _lock(path: Path) -> IO[str] | None:
    """Locks a folder for the life of the handle; None if another process has it."""
    handle = (path / ".lock").open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle


def _metrics(path: Path) -> Path:
    return path / "metrics.jsonl"


def _whole_lines(path: Path) -> list[bytes]:
    """Lines that end: a kill may leave a torn last one."""
    lines = _metrics(path).read_bytes().splitlines(keepends=True)
    return [line for line in lines if line.endswith(b"\n")]


_plain = operator.methodcaller("item")
_line = json.JSONEncoder(default=_plain).encode
"""Made once: `json.dumps` would make an encoder for each line of a small round."""


def _dumps(obj: Any, indent: int | None = None) -> str:
    return json.dumps(obj, indent=indent, default=_plain)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


_PRINTED = ("papers_repro/*/tables/*", "benchmarks/results/*")
"""Results that commands print from runs; no run depends on them."""


def _git(*arguments: str) -> str | None:
    """Runs git on the source tree; None where git or the checkout is missing."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def git_state() -> tuple[str | None, bool | None]:
    """The commit of the source, and whether anything in the checkout differs from it.

    A file that git neither has nor ignores differs too; `_PRINTED` may differ. Both are
    None where the source is not a checkout.
    """
    # An installed copy may be inside another checkout, whose commit is not that of
    # this code.
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None, None
    ours = (":/", *(f":(top,exclude){path}" for path in _PRINTED))
    return _git("rev-parse", "HEAD"), bool(
        _git("status", "-uall", "--porcelain", "--", *ours)
    )
