"""The rows of the benchmark: ratios of medians, verdicts, tables and the plot.

A ratio is of neighbouring turns: peer over ours for a lower bound (`>=`), ours over
peer for an upper bound (`<=`). The median over all turns is compared with the bar.
"""

import math
import operator
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from benchmarks.workers import Samples, WorkerError
from ecogen_jax.report import bars as paper_bars
from ecogen_jax.report import plots, tables

BARS = pathlib.Path(__file__).parent / "bars.csv"
_OF_RUNS = ("experiment", "dataset", "expression", "scale")
COLUMNS = (
    *(name for name in paper_bars.COLUMNS if name not in _OF_RUNS),
    *("peer", "peer_version", "peer_median", "ours_median"),
    *("ratio", "ratio_low", "ratio_high", "repeats", "clock", "cores"),
    *("reason", "machine", "versions"),
)
"""Of a table: those of all tables of bars, and what only a comparison has."""

_SHOWN = {
    "id": "id",
    "quantity": "quantity",
    "unit": "unit",
    "ours_median": "ours",
    "peer": "peer",
    "peer_median": "theirs",
    "ratio": "ratio",
    "spread": "low to high",
    "wanted": "bar",
    "aim": "aim",
    "verdict": "verdict",
}
_DRAWN = ("ratio", "ratio_low", "ratio_high", "bar", "aim")
_MEETS = {">=": operator.ge, "<=": operator.le}

Found = Mapping[str, Samples | WorkerError]


def read(path: pathlib.Path = BARS) -> pd.DataFrame:
    """Reads the bars.

    Raises:
        ValueError: an id is there twice, or a direction is none.
    """
    text = ["peers", "peer"]
    frame = pd.read_csv(path, dtype=dict.fromkeys(text, "str"))
    twice = frame["id"][frame["id"].duplicated()].tolist()
    if twice:
        raise ValueError(f"{path.name} has the ids {twice} twice")
    frame[text] = frame[text].fillna("")
    wrong = frame["id"][~frame["direction"].isin(_MEETS)].tolist()
    if wrong:
        raise ValueError(f"direction of {wrong} is none of {', '.join(_MEETS)}")
    return frame


def judge(bar: Mapping[str, Any], found: Found) -> dict[str, Any]:
    """Fills in one row.

    Args:
        bar: a row of `read`. Several `peers`, joined by "|", are ways to do the same,
            of which the one with the lowest median counts. Without any, our own value
            is compared with the bar.
        found: the samples of the workers of its group.

    Returns:
        The bar with the measurements. One failed worker makes it `not run`, with a
        `reason` that names all that failed: it may have been the fastest way.
    """
    names = [bar["ours"], *filter(None, bar["peers"].split("|"))]
    row = not_run(bar, "")
    errors = [f"{n}: {found[n]}" for n in names if isinstance(found[n], WorkerError)]
    if errors:
        return row | {"reason": f"failed: {'; '.join(errors)}"}
    every = [found[name] for name in names]
    ours, *peers = [each for each in every if isinstance(each, Samples)]
    row |= _spread(bar, ours) | {"versions": told(ours), "repeats": len(ours.seconds)}
    if not peers:
        value = row["ours_median"]
        return row | {"judged": "ours", "verdict": verdict(value, bar)}
    peer = min(peers, key=lambda samples: samples.median)
    ratios = paired(ours.seconds, peer.seconds, bar["direction"])
    ratio = statistics.median(ratios)
    return row | {
        "peer_median": value_of(peer.median, bar),
        "peer_version": told(peer),
        "ratio": ratio,
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "verdict": verdict(ratio, bar),
    }


def not_run(bar: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """A row without measurements, with the reason for it."""
    row = {name: value for name, value in bar.items() if name in COLUMNS}
    about = {"kind": "measured", "verdict": "not run", "judged": "ratio"}
    return row | about | {"reason": reason}


def paired(ours: list[float], peer: list[float], direction: str) -> list[float]:
    """Ratios of neighbours in time; see the top of this file."""
    pairs = zip(ours, peer, strict=True)
    if direction == ">=":
        return [theirs / own for own, theirs in pairs]
    return [own / theirs for own, theirs in pairs]


def value_of(seconds: float, bar: Mapping[str, Any]) -> float:
    """Seconds of a unit in the row's own unit, which may be a rate."""
    if bar["unit"].endswith("/s"):
        return bar["scale"] / seconds
    return bar["scale"] * seconds


def verdict(value: float, bar: Mapping[str, Any]) -> str:
    """Returns `met`, `missed`, or `no bar`."""
    if math.isnan(bar["bar"]):
        return "no bar"
    return "met" if _MEETS[bar["direction"]](value, bar["bar"]) else "missed"


def told(samples: Samples) -> str:
    """Versions as text."""
    return ", ".join(f"{name} {version}" for name, version in samples.about.items())


def _spread(bar: Mapping[str, Any], ours: Samples) -> dict[str, float]:
    values = [value_of(seconds, bar) for seconds in ours.seconds]
    return {
        "ours_median": statistics.median(values),
        "ours_mean": statistics.mean(values),
        "ours_std": statistics.stdev(values) if len(values) > 1 else math.nan,
        "ours_worst": value_of(max(ours.seconds), bar),
    }


def write(name: str, rows: Sequence[Mapping[str, Any]], folder: pathlib.Path) -> None:
    """Writes a table as CSV, and as Markdown with what all its rows share below it.

    Args:
        name: of the table and its files.
        rows: from `judge`, with further columns.
        folder: made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    frame = pd.DataFrame(list(rows)).reindex(columns=list(COLUMNS))
    frame.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    page = tables.to_markdown(tables.from_frame(name, readable(pd.read_csv(path))))
    notes = [f"{row['id']} {row['reason']}" for row in rows if row.get("reason")]
    for column in ("machine", "versions", "peer_version", "command", "commit"):
        values = dict.fromkeys(str(row[column]) for row in rows if row.get(column))
        notes += [f"{column.replace('_', ' ')}: {value}" for value in values]
    lines = [page, *(f"- {note}" for note in notes), ""]
    (folder / f"{name}.md").write_text("\n".join(lines))


def read_tables(folder: pathlib.Path) -> list[pd.DataFrame]:
    """Reads all tables that `write` left in a folder, as `read_table` does."""
    return [read_table(path) for path in sorted(folder.glob("S[0-9]*.csv"))]


def read_table(path: pathlib.Path) -> pd.DataFrame:
    """Reads a table of `write`.

    Raises:
        ValueError: the file is none.
    """
    try:
        table = pd.read_csv(path)[list(COLUMNS)]
        return table.astype(dict.fromkeys(_DRAWN, float))
    except (OSError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path} is no table of this benchmark ({reason}); remove it, or name "
            "another folder with --out"
        ) from error


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns a table's columns for reading."""
    rows = frame.to_dict("records")
    text = frame.assign(
        spread=[_between(row["ratio_low"], row["ratio_high"]) for row in rows],
        wanted=[
            tables.BLANK
            if math.isnan(row["bar"])
            else f"{row['direction']} {row['bar']:g}"
            for row in rows
        ],
    )
    return text[list(_SHOWN)].rename(columns=_SHOWN)


def _between(low: float, high: float) -> str:
    return tables.BLANK if math.isnan(low) else f"{low:.3g} to {high:.3g}"


def plot(folder: pathlib.Path) -> pathlib.Path | None:
    """Draws the ratios of all tables of a folder against their bars.

    Ratios are divided by their bar, or the bar by the ratio for an upper bound: a bar
    is met to the right of 1.

    Returns:
        The file, or None where there is nothing to draw.
    """
    every = read_tables(folder)
    frame = pd.concat(every) if every else pd.DataFrame(columns=list(COLUMNS))
    frame = frame.dropna(subset=["ratio", "bar"])
    if frame.empty:
        return None
    rows = frame.to_dict("records")[::-1]
    height_in = 1.2 + 0.26 * len(rows)
    figure = Figure(figsize=(plots.WIDTH_IN, height_in), layout="constrained")
    axes = figure.subplots()
    for number, row in enumerate(rows):
        ends = [_score(row, row[end]) for end in ("ratio_low", "ratio_high")]
        color = plots.COLORS["end" if row["verdict"] == "met" else "edge"]
        axes.plot(ends, [number] * 2, color=color)
        axes.plot(_score(row, row["ratio"]), number, "o", color=color)
        if not math.isnan(row["aim"]):
            axes.plot(_score(row, row["aim"]), number, "|", color="k", markersize=9)
    axes.axvline(1, color="k")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(
        range(len(rows)), [f"{row['id']}: {row['ratio']:.3g}" for row in rows]
    )
    axes.tick_params(axis="y", labelsize="small")
    axes.set_xlabel("ratio over its bar (ticks: aims)")
    axes.set_title("Ratios against bars", fontsize="medium")
    axes.grid(axis="x", color="#DDDDDD")
    path = folder / "ratios.png"
    figure.savefig(path, dpi=200)
    return path


def _score(row: Mapping[Any, Any], value: float) -> float:
    return value / row["bar"] if row["direction"] == ">=" else row["bar"] / value
