"""Results at a glance: chosen rows of the committed tables, and all verdicts.

    python -m papers_repro.glance

`glance.csv` names the rows and what each answers. What is printed of them, and how many
bars were met and missed, is put into README.md between its markers. It is all read from
tables that other commands made; no number is typed.
"""

import argparse
import math
import pathlib
import sys
from typing import Any, NamedTuple

import pandas as pd

from ecogen_jax.report import files, tables
from papers_repro import paper

ROOT = pathlib.Path(__file__).parent.parent
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


class Page(NamedTuple):
    """A page of results, and the tables behind it.

    Attributes:
        name: what a reader calls it.
        page: the file that explains it.
        tables: globs of its CSV files, from the root of the repository.
    """

    name: str
    page: str
    tables: tuple[str, ...]


PAGES = (
    Page(
        "relay cycle",
        "papers_repro/relay_cycle/README.md",
        ("papers_repro/relay_cycle/tables/*.csv",),
    ),
    Page(
        "data-free hops",
        "papers_repro/dfkd/README.md",
        ("papers_repro/dfkd/tables/*.csv",),
    ),
    Page(
        "one shot from non-IID clients",
        "papers_repro/dense/README.md",
        ("papers_repro/dense/tables/*.csv",),
    ),
    Page(
        "federated protocols",
        "papers_repro/fedgen/README.md",
        ("papers_repro/fedgen/tables/*.csv",),
    ),
    Page(
        "energy and carbon",
        "papers_repro/energy/README.md",
        ("papers_repro/energy/tables/V*.csv",),  # beside them are known contradictions
    ),
    Page(
        "speed",
        "docs/benchmarks.md",
        ("benchmarks/results/S*.csv", "benchmarks/results/*_bars.csv"),
    ),
)


def headlines(root: pathlib.Path = ROOT) -> tables.TextTable:
    """The chosen rows.

    Args:
        root: of the repository.

    Raises:
        ValueError: `glance.csv` names a row that its table does not have.
    """
    chosen = pd.read_csv(root / "papers_repro" / "glance.csv")
    rows: list[tuple[str, ...]] = []
    for table, id, scale, unit, question in chosen.itertuples(index=False):
        frame = paper.read(root / table)
        found = frame[frame["id"] == id]
        if found.empty:
            raise ValueError(
                f"glance.csv names {id!r}, which is not in {table}; there are "
                f"{', '.join(frame['id'])}"
            )
        row = found.iloc[0].to_dict()
        page = pathlib.Path(table).with_suffix(".md")
        if not (root / page).exists():
            page = page.with_name("all.md")
        bar = tables.BLANK
        if not math.isnan(row["bar"]):
            bar = f"{row['direction']} {scale * row['bar']:g}"
        ours = _ours(row, scale, unit)
        rows.append((question, ours, bar, row["verdict"], f"[{id}]({page})"))
    return tables.TextTable("", ("question", "ours", "bar", "verdict", "row"), rows)


def verdicts(root: pathlib.Path = ROOT) -> tables.TextTable:
    """How many bars of each page were met, and which were not.

    Rows that agree by construction (`sort` is `circular`) are not counted.
    """
    rows: list[tuple[str, ...]] = []
    for name, page, patterns in PAGES:
        paths = [path for each in patterns for path in sorted(root.glob(each))]
        frames = [paper.read(path) for path in paths]
        judged = pd.concat(
            [frame[["id", "bar", "verdict", "sort"]] for frame in frames]
        )
        judged = judged[judged["bar"].notna() & (judged["sort"] != "circular")]
        counts = judged["verdict"].value_counts()
        ids = {
            verdict: ", ".join(judged["id"][judged["verdict"] == verdict])
            for verdict in ("missed", "not run")
        }
        cells = (named or tables.BLANK for named in ids.values())
        rows.append((f"[{name}]({page})", str(counts.get("met", 0)), *cells))
    return tables.TextTable("", ("tables", "bars met", "missed", "not run"), rows)


def _ours(row: dict[Any, Any], scale: float, unit: str) -> str:
    """Mean, spread and interval of a row; of a benchmark, its ratio."""
    mean = row.get("ratio", row["ours_mean"])
    sign = "+" if unit == "points" else ""
    text = f"{scale * mean:{sign}.2f}"
    if "ratio" not in row and not math.isnan(row["ours_std"]):
        text += f" ± {scale * row['ours_std']:.2f}"
    text += f" {unit}"
    if not math.isnan(row.get("low", math.nan)):
        text += f" (95 %: {scale * row['low']:.2f} to {scale * row['high']:.2f})"
    return text


def block(root: pathlib.Path = ROOT) -> str:
    """What stands between the markers of README.md."""
    parts = (tables.to_markdown(table(root)).strip() for table in (headlines, verdicts))
    return "\n\n".join(parts)


def replaced(page: str, new: str) -> str:
    """A page with another text between its markers.

    Raises:
        ValueError: the markers are not there, each once, in their order.
    """
    places = [page.find(marker) for marker in (BEGIN, END)]
    once = all(page.count(marker) == 1 for marker in (BEGIN, END))
    if not once or places != sorted(places):
        raise ValueError(
            f"README.md has to have {BEGIN} and, below it, {END}, each once; put them "
            "around the results"
        )
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{new}\n{END}{after}"


def main() -> int:
    """Writes the results into README.md; returns 2 where they have no place."""
    argparse.ArgumentParser(
        prog="python -m papers_repro.glance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    readme = ROOT / "README.md"
    try:
        files.put(readme, replaced(readme.read_text("utf-8"), block()))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"written to {readme.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
