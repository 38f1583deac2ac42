"""Runs one experiment from a config, or resumes where the same command stopped.

  python scripts/train.py --config configs/quickstart.py
  python scripts/train.py --config configs/quickstart.py:smoke
  python scripts/train.py --config configs/relay_cycle.py --config.data.alpha=0.1

Any field of the schema (ecogen_jax/config.py: default) can be overridden with
--config.FIELD=VALUE. The run is written to <run.workdir>/<experiment>/<time>-seed<k>/.

Several processes, on one machine or many, can do one run (docs/scaling.md):

  srun python scripts/train.py --distributed --config configs/federated/fedavg.py
"""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from ecogen_jax import config as configs
from ecogen_jax import distributed
from ecogen_jax.data.sources import DataUnavailableError
from ecogen_jax.run.command import STOPPED, STOPPED_STATUS, join_and_read_config

EXPECTED = (configs.ConfigError, DataUnavailableError, distributed.JoinError)
"""What the user can fix, and is told in one line."""


def main() -> int:
    """Parses the command line and runs."""
    try:
        return report(join_and_read_config(__doc__), Console())
    except EXPECTED as error:
        show(error)
        return 2
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return STOPPED_STATUS


def report(config: configs.ConfigDict, console: Console) -> int:
    """Runs, then prints tables and writes plots and the report."""
    from ecogen_jax.report import html, plots, runs, tables
    from ecogen_jax.run.checkpoint import CheckpointError
    from ecogen_jax.run.diverged import DivergedError
    from ecogen_jax.run.loop import run

    try:
        with run_folder_shown():
            path = unreported(config) or run(config)
    except DivergedError as error:
        show(error)
        return 3
    except CheckpointError as error:
        show(error)
        return 2
    except OSError as error:
        again = "give the same command, which goes on from the last checkpoint"
        return unwritten(error, config.run.workdir, again)
    distributed.finish()
    if not distributed.is_main():
        return 0
    try:
        finished = runs.read(path)
        drawn = plots.write_all(finished)
        page = html.write(finished)
    except ValueError as error:  # a file of the run is damaged
        show(error)
        return 2
    except OSError as error:
        return unwritten(error, path, f"give python scripts/report.py {path}")
    if finished.summary["synthetic_data"]:
        console.print(tables.SYNTHETIC)
    console.print(tables.phase_table(finished.summary))
    if finished.summary["hops"]:
        console.print(tables.hop_table(finished.summary))
    console.print(tables.ledger_table(finished.summary))
    for name, file in (("run folder", path), ("plot", drawn[0]), ("report", page)):
        line = f"{name:<12}{file}"
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return 0


@contextlib.contextmanager
def run_folder_shown() -> Iterator[None]:
    """Prints the folder of the run as it is opened, and whether it is resumed.

    Yields:
        Nothing.
    """
    from ecogen_jax.run import writer

    logger = logging.getLogger(writer.__name__)
    handler = logging.StreamHandler(sys.stdout)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # or a library's handler would print it again
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


def unreported(config: configs.ConfigDict) -> Path | None:
    """The newest finished run of this config, if it was stopped before its report.

    Process 0, which writes reports, looks for it, and all processes get its answer.
    """
    from ecogen_jax.run import sweep

    path = sweep.newest(config) if distributed.is_main() else None
    if path is not None and sweep.is_reported(path):
        path = None
    told = distributed.text_from_main(str(path or ""))
    if path is not None:
        print(f"{'run folder':<12}{path}, finished; its report follows")
    return Path(told) if told else None


def unwritten(error: OSError, folder: str | Path, remedy: str) -> int:
    """Reports a full disk or a file in the way in one line; raises all else again."""
    from ecogen_jax.run.checkpoint import FULL

    if error.errno in FULL:
        show(f"no space left for {folder} ({error.strerror}); make room and {remedy}")
    elif error.filename:
        file = error.filename2 or error.filename
        show(f"{file} cannot be written ({error.strerror}); fix that and {remedy}")
    else:
        raise error
    return 2


def show(error: Exception | str) -> None:
    """Prints an error on one line; brackets in it are not markup."""
    message = f"[bold red]error:[/] {escape(str(error))}"
    Console(stderr=True).print(message, soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
