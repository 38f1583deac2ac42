"""Writes the plots and the report page of finished runs again."""

import argparse
import sys

from ecogen_jax.report import files, html, plots, runs

EXAMPLE = """example:
  python scripts/report.py runs/relay_cycle
"""


def main() -> int:
    """Writes `plots/` and `report.html` into each folder; returns 2 on bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", nargs="+", help="run folders, or folders above some")
    try:
        for path in runs.find(parser.parse_args().run):
            run = runs.read(path)
            with files.accessing(path):
                plots.write_all(run)
                page = html.write(run)
            print(page)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
