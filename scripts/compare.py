"""Compares groups of finished runs: mean, spread, worst seed, paired differences."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from ecogen_jax.report import compare, files, runs, tables

EXAMPLE = """example:
  python scripts/compare.py runs/relay_cycle runs/federated_fedavg \\
      --quantity phases.-1.accuracy.end ledger.edge.energy_j --csv comparison.csv

A quantity is a dotted path into summary.json. Differences are paired by seed, with a
95 % t-interval; of each pair of groups the one named first is the reference.
"""


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", nargs="+", help="run folders, or folders above some")
    parser.add_argument(
        "--quantity",
        nargs="+",
        default=["phases.-1.accuracy.end"],
        metavar="Q",
        help="what to compare (default: phases.-1.accuracy.end)",
    )
    parser.add_argument(
        "--by",
        nargs="+",
        default=["experiment"],
        metavar="FIELD",
        help="what a group shares: experiment (the default), dataset, or a config "
        "field such as data.alpha",
    )
    parser.add_argument("--csv", metavar="FILE", help="write both tables to a file")
    parser.add_argument("--markdown", metavar="FILE", help="the same as Markdown")
    return parser.parse_args()


def compare_all(
    found: Sequence[runs.Run], quantities: Sequence[str], by: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the groups and the pairs for every quantity."""
    groups, pairs = [], []
    for quantity in quantities:
        grouped = compare.by_seed(compare.values(found, quantity, by))
        groups.append(compare.groups_table(grouped, quantity))
        pairs.append(compare.pairs_table(grouped, quantity))
    return pd.concat(groups), pd.concat(pairs)


def main() -> int:
    """Prints the tables; returns 2 on bad input."""
    try:
        report(parse_args())
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def report(args: argparse.Namespace) -> None:
    """Compares, prints and writes."""
    for flag, path in {"--csv": args.csv, "--markdown": args.markdown}.items():
        if path:
            files.check_output(flag, path)
    found = [runs.read(path) for path in runs.find(args.run)]
    compare.check_alike(found, args.by)
    groups, pairs = compare_all(found, args.quantity, args.by)
    shown = [tables.from_frame("Groups", groups)]
    if not pairs.empty:
        title = "Paired by seed: group minus reference, 95 % interval"
        shown.append(tables.from_frame(title, pairs))
    console = Console()
    synthetic = any(run.summary["synthetic_data"] for run in found)
    if synthetic:
        console.print(tables.SYNTHETIC)
    for table in shown:
        tables.print_whole(tables.to_rich(table))
    if not pairs.empty and (pairs["n"] < 2).any():
        console.print("One seed gives no interval and no p: run at least 2.")
    if args.csv:
        with files.accessing(args.csv):
            written = pd.concat([groups, pairs]).assign(synthetic_data=synthetic)
            written.to_csv(args.csv, index=False)
    if args.markdown:
        with files.accessing(args.markdown):
            warning = [f"**{tables.NOTHING_SHOWN}**\n"] if synthetic else []
            text = "\n".join([*warning, *map(tables.to_markdown, shown)])
            Path(args.markdown).write_text(text)


if __name__ == "__main__":
    sys.exit(main())
