"""Checks whether the inputs of a table of jobs give its energy and carbon."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ecogen_jax.energy import audit
from ecogen_jax.report import files

EXAMPLE = f"""columns, all optional: {", ".join((*audit.WORDS, *audit.NUMBERS))}

example:
  name,chip_hours,power_w,pue,intensity_g_per_kwh,energy_kwh,carbon_kg
  7B,82432,400,1.1,385,36270,13964

exits with 1 if a row contradicts itself, with 2 if the file cannot be read
"""


def main() -> int:
    """Prints the contradictions; returns 1 if there are any, 2 on a bad file."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="CSV with one job a row")
    file = parser.parse_args().file
    try:
        table = files.read_csv(file, "one job a row; --help shows one")
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        findings = audit.audit(table)
    except ValueError as error:
        print(f"error: {file}: {error}", file=sys.stderr)
        return 2
    if findings:
        Console().print(show(findings))
    print(f"{len(table)} rows, {len(findings)} contradictions")
    return 1 if findings else 0


def show(findings: list[audit.Finding]) -> Table:
    """Lays findings out as a table."""
    shown = Table("name", "field", "printed", "expected", "reason")
    for finding in findings:
        numbers = (finding.printed, finding.expected)
        cells = ("" if number is None else f"{number:.6g}" for number in numbers)
        # "LLaMA [7B]" is not markup, and neither are quotes in a reason.
        name, reason = escape(finding.name), escape(finding.reason)
        shown.add_row(name, finding.field, *cells, reason)
    return shown


if __name__ == "__main__":
    sys.exit(main())
