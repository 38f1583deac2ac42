"""Runs a config over seeds and a grid; run it again to go on where it stopped."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ecogen_jax.run import sweep

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
        help="values of a config field; several fields make a grid",
    )
    parser.add_argument("--workdir", metavar="DIR", help="default: the config's")
    return parser.parse_args()


def run_with_progress(cells: Sequence[sweep.Cell]) -> Iterator[sweep.Result]:
    """Runs the cells under a progress bar that names the one at work."""
    with Progress() as progress:
        task = progress.add_task("", total=len(cells))

        def name(cell: sweep.Cell) -> None:
            progress.update(task, description=" ".join(cell.overrides))

        # Relative, so that a manifest's command holds no path of one machine.
        train = Path(os.path.relpath(Path(__file__).with_name("train.py")))
        for result in sweep.run(cells, train, name):
            progress.advance(task)
            yield result


def main() -> int:
    """Runs the sweep; returns 1 if a cell failed."""
    args = parse_args()
    fixed = [f"run.workdir={args.workdir}"] if args.workdir else []
    try:
        seeds = [int(seed) for seed in args.seeds.split(",")]
        cells = sweep.cells(args.config, seeds, args.grid, fixed)
        results = list(run_with_progress(cells))
    except ValueError as error:
        sys.exit(f"error: {error}")
    table = Table("overrides", "status", "seconds", "run or log")
    for result in results:
        overrides = " ".join(result.cell.overrides)
        row = (overrides, result.status, f"{result.seconds:.0f}", str(result.where))
        table.add_row(*row)
    Console().print(table)
    return int(any(result.status == "failed" for result in results))


if __name__ == "__main__":
    sys.exit(main())
