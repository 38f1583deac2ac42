"""Attacks the messages of a finished federation, as an eavesdropper.

Membership inference and gradient inversion against the messages of the run's protocol.
docs/privacy.md defines the eavesdropper and what the attacks know.
"""

import argparse
import math
import sys
from pathlib import Path

import pandas as pd
from rich.console import Console

from ecogen_jax import mesh
from ecogen_jax.data.sources import DataUnavailableError
from ecogen_jax.report import attacks as shown
from ecogen_jax.report import files, runs, tables

EXAMPLE = """example:
  python scripts/attack.py --run runs/federated_fedavg/*-seed0 \\
      runs/federated_fedgen/*-seed0 --clip 1 --noise-multiplier 1

Writes attacks/attacks.csv and attacks/attacks.png into each run folder.
"""


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--run", nargs="+", required=True, help="run folders, or folders above some"
    )
    parser.add_argument(
        "--clip",
        type=float,
        default=0.0,
        metavar="C",
        help="attack updates once more that devices have clipped to this norm",
    )
    parser.add_argument(
        "--noise-multiplier",
        type=float,
        default=0.0,
        metavar="Z",
        help="and have added noise to, of deviation Z C",
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="tiny: shows nothing, writes attacks_smoke/",
    )
    args = parser.parse_args()
    try:
        check_protection(args.clip, args.noise_multiplier)
    except ValueError as error:
        parser.error(str(error))
    return args


def check_protection(clip: float, noise_multiplier: float) -> None:
    """Checks the two flags of a protection together.

    Args:
        clip: of `--clip`.
        noise_multiplier: of `--noise-multiplier`.

    Raises:
        ValueError: one is negative or infinite, or there is noise without clipping.
    """
    flags = {"--clip": clip, "--noise-multiplier": noise_multiplier}
    for flag, value in flags.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{flag} is {value:g}: allowed is 0 (off) or more")
    if noise_multiplier and not clip:
        raise ValueError(
            f"--noise-multiplier is {noise_multiplier:g} without --clip: the noise is "
            "a multiple of that norm; give --clip above 0, such as --clip 1"
        )


def attack_one(path: Path, args: argparse.Namespace) -> pd.DataFrame:
    """Attacks one run, and writes its table and plot."""
    from ecogen_jax.run import attacks

    sizes = attacks.Sizes()
    if args.smoke:
        sizes = attacks.Sizes(images=20, victims=1, iterations=2, resamples=20)
    protections = [attacks.NOTHING]
    if args.clip:
        protections.append(attacks.Protection(args.clip, args.noise_multiplier))
    folder = output(path, args)
    files.check_folder(folder)
    rows = attacks.attack(path, sizes=sizes, protections=protections)
    with files.accessing(folder):
        folder.mkdir(exist_ok=True)
        rows.to_csv(folder / "attacks.csv", index=False)
        shown.draw(rows).savefig(folder / "attacks.png", dpi=200)
    return rows


def output(path: Path, args: argparse.Namespace) -> Path:
    """The output folder of a run: a smoke run does not overwrite real results."""
    return path / ("attacks_smoke" if args.smoke else "attacks")


def main() -> int:
    """Attacks each run and prints its tables."""
    args = parse_args()
    mesh.start(1)
    from ecogen_jax.run.checkpoint import CheckpointError

    expected = (DataUnavailableError, CheckpointError, OSError, ValueError)
    console = Console()
    try:
        for path in runs.find(args.run):
            rows = attack_one(path, args)
            show(rows, console, args.smoke)
            if args.clip and (rows["protection"] == "none").all():
                console.print(without_effect(rows), soft_wrap=True)
            line = f"{output(path, args)}"
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    except expected as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def without_effect(rows: pd.DataFrame) -> str:
    """Says that no message of a run could be protected, so no row has a protection."""
    return (
        f"--clip has no effect: {rows['protocol'].iloc[0]} sends no update that a "
        "device could clip"
    )


def show(rows: pd.DataFrame, console: Console, smoke: bool) -> None:
    """Prints the tables of one run."""
    if smoke or rows["synthetic_data"].any():
        console.print("[bold yellow]SMOKE OR SYNTHETIC: these numbers show nothing[/]")
    for table in (shown.membership(rows), shown.inversion(rows)):
        if table.rows:
            gap = 0 if len(table.header) > 6 else 1  # for 80 columns
            console.print(tables.to_rich(table, gap=gap))


if __name__ == "__main__":
    sys.exit(main())
