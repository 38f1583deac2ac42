"""Holds finished runs against a file of bars; writes the table as CSV and Markdown."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from ecogen_jax.report import bars, runs, tables

EXAMPLE = """example:
  python scripts/table.py papers_repro/relay_cycle/bars.csv \\
      runs/quickstart runs/relay_cycle runs/relay_missing_class

The table goes to tables/ beside the file of bars. A bar takes the runs of its
experiment and dataset, which may differ in the seed alone.
"""


def main() -> None:
    """Judges, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bars", type=Path, help="CSV with one bar a row")
    parser.add_argument("run", nargs="+", help="run folders, or folders above some")
    args = parser.parse_args()
    try:
        found = [runs.read(path) for path in runs.find(args.run)]
        table = bars.judge(bars.read(args.bars), found)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    console = Console()
    narrow = bars.readable(table).drop(columns=["dataset", "quantity", "unit", "aim"])
    console.print(tables.to_rich(tables.from_frame("Bars", narrow)))
    if (table["seeds"].dropna().str.count(" ") < 2).any():
        console.print("A row with fewer than 3 seeds supports no claim.")
    written = bars.write(table, args.bars.parent / "tables")
    console.print(f"written to {written} and its .csv", soft_wrap=True)


if __name__ == "__main__":
    main()
