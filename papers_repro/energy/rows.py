"""One bar of a published table: the cell, our value, the deviation and the verdict."""

import csv
import pathlib
from typing import Any

import pandas as pd

from papers_repro.origin import commit
from papers_repro.paper import STANDINGS

HERE = pathlib.Path(__file__).parent
COLUMNS = (
    "id",
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
    "aim",
    "deviation",
    "verdict",
    "kind",
    "sort",
    "command",
    "commit",
)
ALLOWED = {
    "standing": STANDINGS,
    "kind": ("measured", "modelled", "assumed"),
    "sort": ("accounting", "circular", "measured", "prediction"),
    "direction": ("<=", ">=", "="),
}
COMMAND = "make reproduce-energy"


def cells(name: str) -> pd.DataFrame:
    """Reads the published cells of one table.

    Args:
        name: stem of a file in ``cells/``, such as ``V1``.

    Returns:
        One cell a row; text columns that are blank hold "".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line has more or fewer fields than the header.
    """
    path = HERE / "cells" / f"{name}.csv"
    with path.open(encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise ValueError(
                f"{path.name} line {number} has {len(line)} fields, the header has "
                f"{len(header)}; quote a field that holds a comma"
            )
    frame = pd.read_csv(path)
    text = frame.select_dtypes(exclude="number").columns
    return frame.fillna(dict.fromkeys(text, ""))


def row(
    *,
    id: str,
    quantity: str,
    unit: str,
    published: float | None,
    locator: str,
    standing: str,
    ours: float | None,
    kind: str,
    sort: str,
    tolerance: float | None = None,
    aim: float | None = None,
    bar: float | None = None,
    direction: str = "<=",
) -> dict[str, Any]:
    """Makes one row of a table and computes its deviation and verdict.

    Give ``tolerance`` to bound the deviation, or ``bar`` to bound our value itself. A
    cell that was not read (`inferred`) carries neither, hence no verdict.

    Args:
        id: dotted, such as ``V4.bloom.mwh``.
        quantity: what is counted.
        unit: unit of ``published`` and ``ours``.
        published: value as printed, or None where we print only our own.
        locator: source with its table or section.
        standing: of `STANDINGS`.
        ours: our value, or None where it was not run.
        kind: ``measured``, ``modelled`` or ``assumed``: what ``published`` is.
        sort: ``accounting``, ``circular``, ``measured`` or ``prediction``.
        tolerance: largest abs(deviation), as a fraction.
        aim: a tighter value of the bar that we hope for.
        bar: bound of ``ours``, in ``unit``.
        direction: ``<=``, ``>=`` or ``=``: how our value relates to the bar.

    Returns:
        A dict with the keys `COLUMNS`; ``deviation`` is ours/published - 1.

    Raises:
        ValueError: a word is not one of `ALLOWED`, or both bounds are given.
    """
    words = {"standing": standing, "kind": kind, "sort": sort, "direction": direction}
    _check(id, words, both=tolerance is not None and bar is not None)
    if standing == "inferred":
        tolerance = bar = aim = None
    cell = {
        "id": id,
        "quantity": quantity,
        "unit": unit,
        "published": published,
        "locator": locator,
        "ours_mean": ours,
        "aim": aim,
        "command": COMMAND,
        "commit": commit(),
    }
    judged = _judged(ours, published, direction, tolerance=tolerance, bar=bar)
    return dict.fromkeys(COLUMNS) | words | cell | judged


def _check(id: str, words: dict[str, str], *, both: bool) -> None:
    """Refuses words that are not `ALLOWED`, and a row with both bounds."""
    for field, word in words.items():
        if word not in ALLOWED[field]:
            raise ValueError(f"{field} of {id} is {word!r}; allowed: {ALLOWED[field]}")
    if both:
        raise ValueError(f"{id} has a tolerance and a bar; give one of them")


def _judged(
    ours: float | None,
    published: float | None,
    direction: str,
    *,
    tolerance: float | None,
    bar: float | None,
) -> dict[str, Any]:
    """The deviation, what bounds it or our value, and whether the bound holds."""
    deviation = _deviation(ours, published)
    score = ours if tolerance is None else deviation and abs(deviation)
    limit = bar if tolerance is None else tolerance
    return {
        "deviation": deviation,
        "bar": limit,
        "verdict": verdict(score, direction, limit),
    }


def verdict(score: float | None, direction: str, bar: float | None) -> str:
    """Compares a score with its bar.

    Args:
        score: the value, or None where it was not run.
        direction: ``<=``, ``>=`` or ``=``.
        bar: the bound, or None where there is none.

    Returns:
        ``met``, ``missed``, ``not run`` or ``no bar``.
    """
    if score is None:
        return "not run"
    if bar is None:
        return "no bar"
    holds = {"<=": score <= bar, ">=": score >= bar, "=": score == bar}[direction]
    return "met" if holds else "missed"


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Puts rows together into one table.

    Args:
        rows: what `row` returned.

    Returns:
        A frame with the columns `COLUMNS` in their order.
    """
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _deviation(ours: float | None, published: float | None) -> float | None:
    if ours is None or not published:
        return None
    # Twelve digits: what is left of binary fractions is no deviation.
    return round(ours / published - 1, 12)
