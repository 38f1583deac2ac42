"""Compares finished runs with a file of bars; writes a table, CSV and Markdown."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from ecogen_jax.report import bars, files, runs, tables, verdicts

EXAMPLE = """example:
  python scripts/table.py papers_repro/relay_cycle/bars.csv \\
      runs/quickstart runs/relay_cycle runs/relay_missing_class runs/relay_reference

The table goes to tables/ beside the file of bars, and is named like it. A bar takes the
runs of its experiment and dataset, which may differ in the seed alone. A row without
such runs keeps what the table there says of it, unless it is asked otherwise since.
"""


def main() -> int:
    """Judges, prints and writes; returns 2 on bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bars", type=Path, help="CSV with one bar a row")
    parser.add_argument("run", nargs="+", help="run folders, or folders above some")
    args = parser.parse_args()
    try:
        report(args.bars, args.run)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def report(named: Path, folders: Sequence[str]) -> None:
    """Judges the runs in some folders by the bars of a file, prints and writes."""
    path = named.parent / "tables" / named.name
    found = [runs.read(folder) for folder in runs.find(folders)]
    table = verdicts.judge(bars.read(named), found)
    check_some_run(table, found)
    with files.accessing(path):
        table = bars.kept(table, path)
    console = Console()
    if any(run.summary["synthetic_data"] for run in found):
        console.print(tables.SYNTHETIC)
    narrow = bars.readable(table).drop(columns=["dataset", "quantity", "unit", "aim"])
    tables.print_whole(tables.to_rich(tables.from_frame("Bars", narrow)))
    if (table["seeds"].dropna().str.count(" ") < 2).any():
        console.print("A row with fewer than 3 seeds supports no claim.")
    with files.accessing(path):
        written = bars.write(table, path)
    console.print(f"written to {written} and its .csv", soft_wrap=True, markup=False)


def check_some_run(table: pd.DataFrame, found: Sequence[runs.Run]) -> None:
    """Checks that some run belongs to a bar.

    Args:
        table: as judged.
        found: the runs.

    Raises:
        ValueError: no bar has a run.
    """
    if table["ours_mean"].notna().any():
        return
    asked = zip(table["experiment"], table["dataset"], strict=True)
    there = ((run.summary["experiment"], run.summary["dataset"]) for run in found)
    wanted, given = (
        ", ".join(dict.fromkeys(f"{name} on {dataset}" for name, dataset in pairs))
        for pairs in (asked, there)
    )
    raise ValueError(
        f"the bars are about {wanted}, the runs are {given}: none fills a bar; name "
        "runs of those experiments and datasets"
    )


if __name__ == "__main__":
    sys.exit(main())
