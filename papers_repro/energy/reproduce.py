"""Computes the published tables of this folder, and prints what met its bar.

    python -m papers_repro.energy.reproduce [--only V1,V2] [--out papers_repro/energy]

Writes one CSV a table, and from all that are there `tables/all.md` and a plot of the
deviations. Prints counts of verdicts and the rows that missed. Exits with 1 if an
accounting row misses its bar: those have no model to blame.
"""

import argparse
import io
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import IO

import matplotlib

matplotlib.use("Agg")

import pandas as pd
from matplotlib import pyplot as plt

from ecogen_jax.report import files
from papers_repro.energy import accounting, predictions, programs, rows

TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    **accounting.TABLES,
    **programs.TABLES,
    **predictions.TABLES,
}
SHOWN = (
    "id",
    "unit",
    "published",
    "ours_mean",
    "deviation",
    "direction",
    "bar",
    "aim",
    "verdict",
    "standing",
    "kind",
    "sort",
)
# Enough to see any deviation that a bar allows, few enough to be the same on any CPU.
DIGITS = "%.6g"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 1 if an accounting row missed its bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ids = ", ".join(sorted(TABLES, key=_order))
    parser.add_argument("--only", metavar="ID,ID", help=f"of {ids}; all without it")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=rows.HERE,
        help="holds tables/ (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    chosen = options.only.split(",") if options.only else list(TABLES)
    unknown = sorted(set(chosen) - set(TABLES))
    if unknown:
        parser.error(f"--only has {unknown}; known: {ids}")
    folder = options.out / "tables"
    try:
        files.make_folder(folder)  # before the work starts
    except ValueError as error:
        parser.error(f"--out is {options.out}: {error}")
    tables = {name: TABLES[name]() for name in sorted(chosen, key=_order)}
    written = write(tables, folder)
    code = report(pd.concat(tables.values(), ignore_index=True))
    print(f"written to {written} and beside it")
    return code


def write(tables: Mapping[str, pd.DataFrame], folder: pathlib.Path) -> pathlib.Path:
    """Writes tables, and the Markdown and the plot of all that the folder has.

    Args:
        tables: frames by id; other tables of the folder stay.
        folder: where to; made if missing.

    Returns:
        The path of the Markdown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        name: frame.to_csv(index=False, float_format=DIGITS, lineterminator="\n")
        for name, frame in tables.items()
    }
    shown, whole = _all(texts, folder), folder / "all.md"
    pages = {whole: markdown(shown)}
    pages |= {folder / f"{name}.csv": text for name, text in texts.items()}
    for path, page in pages.items():
        files.put(path, page)
    files.put(folder / "deviations.png", lambda to: plot(shown, to))
    return whole


def _all(new: Mapping[str, str], folder: pathlib.Path) -> dict[str, pd.DataFrame]:
    """Reads all tables of a folder back, those of `new` from their text."""
    found = {}
    for name in sorted(TABLES, key=_order):
        path = folder / f"{name}.csv"
        # From text even if new: what is printed does not depend on what was chosen.
        if name in new:
            found[name] = read(io.StringIO(new[name]))
        elif path.exists():
            found[name] = read(path)
    return found


def read(path: pathlib.Path | IO[str]) -> pd.DataFrame:
    """Reads a written table back."""
    return pd.read_csv(path, dtype={"verdict": "str"})


def report(frame: pd.DataFrame) -> int:
    """Prints what was met and missed; returns 1 if a row of accounting missed."""
    print(counts(frame).to_string())
    missed = frame[frame["verdict"] == "missed"]
    for _, bar in missed.iterrows():
        print(f"missed: {bar['id']}: {_text(bar['ours_mean'])} {bar['unit']}")
    return int(any(id.split(".")[0] in accounting.TABLES for id in missed["id"]))


def counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Counts verdicts by sort.

    Args:
        frame: rows of any number of tables.

    Returns:
        One row a sort, one column a verdict.
    """
    return pd.crosstab(frame["sort"], frame["verdict"])


def markdown(tables: Mapping[str, pd.DataFrame]) -> str:
    """Prints tables as Markdown, by id.

    Args:
        tables: frames by id.

    Returns:
        Counts of verdicts by sort, then one section a table.
    """
    everything = pd.concat(tables.values(), ignore_index=True)
    sections = [
        "# Published energy tables\n",
        _rows(counts(everything).reset_index()),
        *(
            f"## {name}\n\n{_rows(frame[list(SHOWN)])}"
            for name, frame in tables.items()
        ),
    ]
    return "\n".join(sections)


def plot(tables: Mapping[str, pd.DataFrame], path: pathlib.Path) -> None:
    """Draws the deviation of every row that has one, by table.

    Args:
        tables: frames by id; of ``known_bad`` nothing is drawn, it is meant to deviate.
        path: the PNG to write, by whatever name.
    """
    rest = (name for name in tables if name != "known_bad")
    drawn = [name for name in rest if tables[name]["deviation"].notna().any()]
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for place, name in enumerate(drawn):
        frame = tables[name].dropna(subset="deviation")
        percent = 100 * frame["deviation"].astype(float)
        colours = frame["verdict"].map(_colour).tolist()
        axes.scatter([place] * len(frame), percent, c=colours, s=16, alpha=0.7)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set_yscale("symlog", linthresh=1)
    ticks = [-100, -10, -1, 0, 1, 10, 100]
    axes.set_yticks(ticks, [f"{tick:+d}" if tick else "0" for tick in ticks])
    axes.set_xticks(range(len(drawn)), drawn)
    axes.set_ylabel("deviation from the published value / %")
    axes.set_title("bar met: green, missed: red, no bar: grey")
    figure.savefig(path, dpi=120, format="png")
    plt.close(figure)


def _colour(verdict: str) -> str:
    return {"met": "tab:green", "missed": "tab:red"}.get(verdict, "0.6")


def _order(name: str) -> tuple[int, str]:
    """V2 before V10, what has no number last."""
    digits = name.removeprefix("V")
    return (int(digits), name) if digits.isdigit() else (10**6, name)


def _rows(frame: pd.DataFrame) -> str:
    lines = [frame.columns, ["---"] * len(frame.columns), *frame.to_numpy()]
    return "".join(f"| {' | '.join(map(_text, line))} |\n" for line in lines)


def _text(value: object) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    raise SystemExit(main())
