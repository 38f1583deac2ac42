"""Runs a config over seeds and a grid; run it again to continue a stopped sweep."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from ecogen_jax import config
from ecogen_jax.report import tables
from ecogen_jax.run import command, sweep

EXAMPLE = """example:
  python scripts/sweep.py --config configs/relay_cycle.py --seeds 0,1,2 \\
      --grid data.name=mnist,fashion_mnist --grid data.alpha=0.1,0.3

Each cell is `python scripts/train.py --config ... --config.field=value`. A cell with a
finished run of the same config is skipped, an unfinished run is resumed, and a failed
cell does not end the sweep: its log is kept in <workdir>/sweep-logs/.
"""


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]")
    seeds = "comma-separated (default: %(default)s)"
    parser.add_argument("--seeds", default="0,1,2", metavar="K,K", help=seeds)
    parser.add_argument(
        "--grid",
        nargs="+",
        default=[],
        action="extend",
        metavar="FIELD=V,V",
        help="values of a config field; several fields make a grid. A comma inside "
        "brackets or quotes does not split; of hops: "
        "\"nets.end='cnn_medium,mlp',cnn_small\"",
    )
    parser.add_argument("--workdir", metavar="DIR", help="default: the config's")
    return parser.parse_args()


def parse_seeds(text: str) -> list[int]:
    """Reads the value of `--seeds`.

    Args:
        text: whole numbers between commas.

    Returns:
        The seeds.

    Raises:
        ValueError: the text is of another form, or names a seed twice.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(map(str.isdecimal, words)):
        raise ValueError(
            f"--seeds is {text!r}: allowed are whole numbers between commas, such as "
            "0,1,2"
        )
    seeds = [int(word) for word in words]
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        raise ValueError(f"--seeds is {text!r} and has {twice} twice: name each once")
    return seeds


def run_with_progress(cells: Sequence[sweep.Cell]) -> Iterator[sweep.Result]:
    """Runs the cells under a progress bar that names the current one."""
    with Progress() as progress:
        task = progress.add_task("", total=len(cells))

        def name(cell: sweep.Cell) -> None:
            progress.update(task, description=escape(" ".join(cell.overrides)))

        # Relative, so that the command in a manifest has no machine-specific path.
        train = Path(os.path.relpath(Path(__file__).with_name("train.py")))
        for result in sweep.run(cells, train, name):
            progress.advance(task)
            yield result


def main() -> int:
    """Runs the sweep; returns 1 if a cell failed, 2 on bad input."""
    args = parse_args()
    fixed = [f"run.workdir={args.workdir}"] if args.workdir else []
    try:
        seeds = parse_seeds(args.seeds)
        cells = sweep.cells(args.config, seeds, args.grid, fixed)
        warn(cells)
        with command.sigterm_as_ctrl_c():  # it also ends the run of the current cell
            results = list(run_with_progress(cells))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(command.STOPPED, file=sys.stderr)
        return command.STOPPED_STATUS
    show(results)
    return int(any(result.status == "failed" for result in results))


def warn(cells: Sequence[sweep.Cell]) -> None:
    """Warns once about grid fields without effect: their cells give equal runs."""
    lines = [
        line
        for spec, overrides in cells
        for line in command.warning_lines(config.load(spec, overrides), overrides)
    ]
    for line in dict.fromkeys(lines):
        print(line, file=sys.stderr)


def show(results: Sequence[sweep.Result]) -> None:
    """Prints the outcome of each cell, then its run folder, or its log if it failed."""
    table = Table("cell", "overrides", "status", "seconds")
    for number, result in enumerate(results):
        overrides = escape(" ".join(result.cell.overrides))
        table.add_row(str(number), overrides, result.status, f"{result.seconds:.0f}")
    tables.print_whole(table)
    console = Console()
    for number, result in enumerate(results):
        name = "log" if result.status == "failed" else "run folder"
        line = f"{name:<12}{number:<4}{result.where}"
        console.print(line, soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    sys.exit(main())
