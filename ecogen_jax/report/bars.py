"""Files of bars, and the tables of results that `verdicts` fills in.

A file of bars has one bar per row: its runs (`experiment`, `dataset`), an `expression`
over a run's summary, and the `bar` that its mean, worst or spread over seeds has to
reach. A row may compare the value with that of another experiment, paired by seed.
"""

import io
import math
from pathlib import Path
from typing import Any

import pandas as pd

from ecogen_jax.report import files, tables

COLUMNS = (
    "id",
    "experiment",
    "dataset",
    "expression",
    "scale",
    "quantity",
    "unit",
    "published",
    "locator",
    "standing",
    "ours_mean",
    "ours_std",
    "ours_worst",
    "seeds",
    "direction",
    "bar",
    "judged",
    "aim",
    "deviation",
    "verdict",
    "kind",
    "sort",
    "command",
    "commit",
)
"""Of a judged table; those that neither the bars nor the runs have stay blank."""

PAIRED = ("against", "low", "high")
"""Columns that follow where the file has `against`: ends of the 95 % interval of the
mean of a difference or ratio, and of the spread where that is judged."""

ALLOWED = {"direction": (">=", "<=", "="), "judged": ("mean", "worst", "std")}

# The question of a bar; a printed row stays valid as long as it is the same.
_ASKED = (
    *("experiment", "dataset", "expression", "scale", "quantity", "unit"),
    *("direction", "bar", "judged", "against"),
)
_FROM_RUNS = (
    "ours_mean",
    "ours_std",
    "ours_worst",
    "seeds",
    "verdict",
    "command",
    "commit",
    "low",
    "high",
)
_REQUIRED = ("id", "experiment", "dataset", "expression", "bar", *ALLOWED)


def read(path: str | Path) -> pd.DataFrame:
    """Reads a file of bars.

    Args:
        path: a CSV with at least the columns id, experiment, dataset, expression (see
            `verdicts.evaluate`), direction (`>=`, `<=` or `=`), bar (blank: print only)
            and judged (`mean`, `worst` or `std`: which of them is held against it).
            It may have scale (of the value, such as 100 for percent), published, and
            against: `- other` or `/ other`, the experiment whose value is subtracted
            or divided by, for every seed that both have.

    Returns:
        One row a bar.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a table, a column is missing, an id is there twice,
            a direction or judged is not an allowed word, a cell that has to be filled
            is blank, a number cannot be read, or a bar with `=` is blank.
    """
    bars = files.read_csv(path, f"one bar a row and the columns {', '.join(_REQUIRED)}")
    missing = [name for name in _REQUIRED if name not in bars]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}; add them")
    twice = bars["id"][bars["id"].duplicated()].tolist()
    if twice:
        raise ValueError(f"{path} has the ids {twice} twice; give each bar its own")
    for name, allowed in ALLOWED.items():
        wrong = bars[~bars[name].isin(allowed)]
        if not wrong.empty:
            raise ValueError(
                f"{name} of bar {wrong['id'].iloc[0]} is {wrong[name].iloc[0]!r} in "
                f"{path}; allowed: {', '.join(allowed)}"
            )
    _check_cells(bars, path)
    aimless = bars["id"][(bars["direction"] == "=") & bars["bar"].isna()].tolist()
    if aimless:
        raise ValueError(f"bars {aimless} of {path} have '=' but no number; give one")
    return bars


def _check_cells(bars: pd.DataFrame, path: str | Path) -> None:
    for name in ("id", "experiment", "dataset", "expression"):
        if bars[name].isna().any():
            row = bars[name].isna().tolist().index(True) + 1
            raise ValueError(f"{name} of row {row} of {path} is blank; fill it in")
    for name in ("bar", "aim", "scale", "published"):
        if name in bars and not pd.api.types.is_numeric_dtype(bars[name]):
            said = pd.to_numeric(bars[name], errors="coerce")
            wrong = bars[said.isna() & bars[name].notna()]
            raise ValueError(
                f"{name} of bar {wrong['id'].iloc[0]} is {wrong[name].iloc[0]!r} in "
                f"{path}; give a number, or leave it blank"
            )


def kept(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Keeps the printed values of runs that are not available.

    Args:
        table: from `verdicts.judge`.
        path: the CSV to which `write` has put it before, or not yet.

    Returns:
        The table; rows without runs keep the numbers, command and commit of the earlier
        table, unless the bar has changed since.

    Raises:
        ValueError: as `printed`.
    """
    if not path.exists():
        return table
    before = printed(path)
    missing = table.loc[table["ours_mean"].isna(), "id"]
    before = before[before["id"].isin(missing) & before["ours_mean"].notna()]
    asked = table.set_index("id").reindex(before["id"])
    before = before[unchanged(asked, before).to_numpy()].set_index("id")
    filled = table.set_index("id").astype("object")
    columns = [name for name in _FROM_RUNS if name in before and name in filled]
    filled.loc[before.index, columns] = before[columns]
    filled["deviation"] = deviation(filled)
    return filled.reset_index()[list(table.columns)].infer_objects()


def printed(path: Path) -> pd.DataFrame:
    """Reads a judged table that was written before.

    Args:
        path: its CSV.

    Returns:
        The table; seeds and commits are text.

    Raises:
        ValueError: the file is empty or damaged.
    """
    try:
        text = path.read_text("utf-8")
        table = pd.read_csv(io.StringIO(text), dtype={"seeds": "str", "commit": "str"})
        lacking = [name for name in ("id", "ours_mean") if name not in table]
        if lacking:
            raise ValueError(f"it has no {', '.join(lacking)}")
        if not text.endswith("\n"):
            raise ValueError("its last line is cut")
        return table.astype({"ours_mean": "float"})
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({str(error).strip()}); put a whole one back, or "
            "delete it, which loses its rows of runs that are not at hand"
        ) from error


def deviation(table: pd.DataFrame) -> "pd.Series[float]":
    """Ours over what was published, minus 1; NaN where either is blank."""
    ours, published = (table[name].astype(float) for name in ("ours_mean", "published"))
    return ours / published - 1


def unchanged(asked: pd.DataFrame, printed: pd.DataFrame) -> "pd.Series[bool]":
    """Whether rows that were printed answer the same question as bars, row by row."""
    columns = [name for name in _ASKED if name in asked or name in printed]
    now, before = (each.reindex(columns=columns) for each in (asked, printed))
    before = before.set_axis(asked.index)
    return ((now == before) | (now.isna() & before.isna())).all(axis=1)


def write(table: pd.DataFrame, path: Path) -> Path:
    """Writes a CSV, and a Markdown of the same name printed from it.

    Args:
        table: from `verdicts.judge`.
        path: the CSV; its folder is made where it is missing.

    Returns:
        The Markdown.
    """
    text = table.to_csv(index=False, lineterminator="\n")
    shown = readable(pd.read_csv(io.StringIO(text)))
    title = (
        f"Mean, std and worst are over seeds; commands and commits are in {path.name}."
    )
    markdown = path.with_suffix(".md")
    path.parent.mkdir(parents=True, exist_ok=True)
    # The CSV comes last: what it has of runs that are gone is nowhere else.
    files.put(markdown, tables.to_markdown(tables.from_frame(title, shown)))
    files.put(path, text)
    return markdown


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a judged table's columns for reading, the bar as "mean >= 0.85"."""
    same = ("id", "dataset", "quantity", "unit")
    ours = {name: table[f"ours_{name}"] for name in ("mean", "std", "worst")}
    return table[list(same)].assign(
        **ours,
        seeds=table["seeds"],
        bar=[in_words(bar) for bar in table.to_dict("records")],
        aim=table["aim"],
        verdict=table["verdict"],
    )


def in_words(bar: dict[Any, Any]) -> str:
    """Returns the bar of a row as "mean >= 0.85", or a dash where it has none."""
    if math.isnan(bar["bar"]):
        return tables.BLANK
    return f"{bar['judged']} {bar['direction']} {bar['bar']:g}"
