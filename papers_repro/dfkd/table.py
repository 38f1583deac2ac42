"""The tables: the bars of this folder, the claims beside them, and what runs gave."""

import functools
import math
import pathlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from ecogen_jax.report import bars, tables
from ecogen_jax.report.runs import Run
from papers_repro.dfkd.experiments import DISTILLERS, EXPERIMENTS, HERE

CURVE = {
    "mean_over_training": "mean_over_training_validation",
    "peak": "peak_validation",
    "last": "last_validation",
}
"""Columns on validation, and where a hop of the summary has them."""

COMMAND = "python -m papers_repro.dfkd.reproduce"
STANDINGS = ("read", "second-hand", "inferred")
_LAST_HOP = "hops.-1."
_BEST = "best"
_SHOWN = {
    "id": "id",
    "quantity": "quantity",
    "unit": "unit",
    "published": "published",
    "standing": "standing",
    "ours_mean": "ours",
    "ours_std": "std",
    "ours_worst": "worst",
    "interval": "95 %",
    "seeds": "seeds",
    "bar": "bar",
    "aim": "aim",
    "verdict": "verdict",
    **{name: name.replace("_", " ") for name in CURVE},
}


@functools.cache
def claims() -> pd.DataFrame:
    """Reads what was published, by id.

    Raises:
        ValueError: an id is there twice, a standing is none of `STANDINGS`, or a value
            is blank without a reason.
    """
    frame = pd.read_csv(HERE / "claims.csv").set_index("id")
    twice = frame.index[frame.index.duplicated()].tolist()
    if twice:
        raise ValueError(f"claims {twice} are there twice")
    wrong = frame.index[~frame["standing"].isin(STANDINGS)].tolist()
    if wrong:
        raise ValueError(f"claims {wrong} have no standing of {STANDINGS}")
    unsaid = frame.index[frame["published"].isna() & frame["reason"].isna()].tolist()
    if unsaid:
        raise ValueError(f"claims {unsaid} are blank and do not say why")
    return frame


@functools.cache
def all_bars() -> dict[str, pd.DataFrame]:
    """Reads the bars by table, each beside the claim that it names.

    Raises:
        ValueError: a file is wrong (see `bars.read`), or a claim is unknown.
    """
    return {path.stem: _with_claims(path) for path in sorted(HERE.glob("bars/*.csv"))}


def _with_claims(path: pathlib.Path) -> pd.DataFrame:
    frame = bars.read(path)
    unknown = sorted(set(frame["claim"].dropna()) - set(claims().index))
    if unknown:
        raise ValueError(f"{path.name} names the claims {unknown}; add them")
    found = claims().reindex(frame["claim"])
    return frame.assign(
        against=frame["against"].astype("str"),  # also where all are blank
        published=found["published"].to_numpy(),
        standing=found["standing"].to_numpy(),
        locator=(found["source"] + "; " + found["locator"]).to_numpy(),
    )


def chosen(only: Iterable[str] = ()) -> pd.DataFrame:
    """Returns the bars with one of these ids, or below one of them; all for none.

    Args:
        only: ids or their first parts, such as "A1" or "C1.alpha0.1".

    Raises:
        ValueError: an id has no bar.
    """
    frame = pd.concat(all_bars().values(), ignore_index=True)
    wanted = list(only)
    for id in wanted:
        if not frame["id"].map(lambda own, id=id: _within(own, id)).any():
            names = ", ".join(all_bars())
            raise ValueError(f"no bar is called {id!r}; there are {names} and parts")
    if not wanted:
        return frame
    return frame[frame["id"].map(lambda own: any(_within(own, id) for id in wanted))]


def _within(id: str, part: str) -> bool:
    return id == part or id.startswith(f"{part}.")


def experiments(frame: pd.DataFrame) -> list[str]:
    """Ids of the experiments that bars are about, in the order of the rows."""
    named: list[str] = []
    for own, against in frame[["experiment", "against"]].itertuples(index=False):
        others = [] if pd.isna(against) else [against.partition(" ")[2]]
        named += [own, *(family(own) if against == _BEST else others)]
    return list(dict.fromkeys(named))


def family(id: str) -> list[str]:
    """Experiments of A4 that one is compared with: the other distillers, alike."""
    prefix = id.rpartition(".")[0]
    return [f"{prefix}.{name}" for name in DISTILLERS]


def judged(name: str, found: Sequence[Run], *, smoke: bool = False) -> pd.DataFrame:
    """Fills in what the runs gave.

    Args:
        name: of the table, such as "A1".
        found: finished runs.
        smoke: whether they are those of the smoke, on generated data.

    Returns:
        A bar a row: the columns of `bars.judge`, then `CURVE`: means over seeds, on
        validation, where a row is about what a hop taught.
    """
    frame = _with_rival(all_bars()[name], found, smoke)
    if smoke:
        frame = _as_smoke(frame)
    table = bars.judge(frame, found)
    about = (frame["expression"] == f"{_LAST_HOP}test") & frame["against"].isna()
    for column, place in CURVE.items():
        curve = bars.judge(frame[about].assign(expression=_LAST_HOP + place), found)
        table.loc[about, column] = curve["ours_mean"].to_numpy(dtype=float)
    table["command"] = f"{COMMAND} --only " + table["id"]
    # Which two are the best of the others is known once all have run.
    idle = (table["verdict"] == "not run") & ~table["experiment"].str.contains("relay")
    return table[~(idle & table["id"].str.startswith("A4.long."))]


def _as_smoke(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(
        experiment=frame["experiment"] + "_smoke",
        against=frame["against"] + "_smoke",
        dataset="fake",
    )


def _with_rival(frame: pd.DataFrame, found: Sequence[Run], smoke: bool) -> pd.DataFrame:
    """Names the experiment behind `best`: of the others, the one highest on test."""
    suffix = "_smoke" if smoke else ""

    def named(bar: "pd.Series[str]") -> str:
        if bar["against"] != _BEST:
            return bar["against"]
        means = {
            other: score
            for other in family(bar["experiment"])
            if (score := mean(found, other + suffix, f"{_LAST_HOP}test")) is not None
        }
        # Nothing to compare with yet: any of them, and the row was not run.
        best = max(means, key=means.__getitem__, default=family(bar["experiment"])[0])
        return f"- {best}"

    return frame.assign(against=frame.apply(named, axis=1).astype("str"))


def mean(found: Iterable[Run], experiment: str, expression: str) -> float | None:
    """Mean of an expression over the runs of an experiment; None without a run."""
    values = [
        bars.evaluate(expression, run)
        for run in found
        if run.summary["experiment"] == experiment
    ]
    return sum(values) / len(values) if values else None


def best_three(found: Sequence[Run]) -> list[str]:
    """The experiments of A4 with the larger budget: relay, and the best two others.

    Args:
        found: finished runs, among them those of the smaller budget.

    Returns:
        Ids; the choice is made by the last accuracy on validation.
    """
    last = _LAST_HOP + CURVE["last"]
    scores = {
        name: score
        for name in DISTILLERS
        if (score := mean(found, f"A4.{name}", last)) is not None
    }
    best = sorted(scores, key=scores.__getitem__, reverse=True)[:2]
    return [f"A4.long.{name}" for name in ("relay", *best)]


def write(
    judged: Mapping[str, pd.DataFrame], folder: pathlib.Path, *, smoke: bool = False
) -> pathlib.Path:
    """Writes `<ID>.csv` and `<ID>.md` for tables, and all of the folder as `all.md`.

    Args:
        judged: by name, from that function; other tables of the folder stay.
        folder: made where it is missing.
        smoke: whether the numbers show nothing.

    Returns:
        The path of `all.md`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in judged.items():
        path = folder / f"{name}.csv"
        frame.to_csv(path, index=False, lineterminator="\n")
        path.with_suffix(".md").write_text(markdown(name, read(path)), encoding="utf-8")
    sections = ["# Data-free hops: ours beside what was published\n"]
    sections += ["SMOKE: generated data; these numbers show nothing.\n"] * smoke
    written = sorted(folder.glob("*.csv"))
    sections += [path.with_suffix(".md").read_text("utf-8") for path in written]
    whole = folder / "all.md"
    whole.write_text("\n".join(sections), encoding="utf-8")
    return whole


def read(path: pathlib.Path) -> pd.DataFrame:
    """Reads a written table back; seeds and commits are text."""
    return pd.read_csv(path, dtype={"seeds": "str", "commit": "str"})


def markdown(name: str, table: pd.DataFrame) -> str:
    """Prints one table, above its command, its commits and what it lacks."""
    commits = " ".join(dict.fromkeys(" ".join(table["commit"].dropna()).split()))
    shown = tables.to_markdown(tables.from_frame(f"## {name}", readable(table)))
    lines = [
        f"Command: `{COMMAND} --only {name}`; commit: {commits or tables.BLANK}\n",
        *(
            f"Not run: {', '.join(lacking)}.\n"
            for lacking in [missing(table)]
            if lacking
        ),
    ]
    return "\n".join([shown, *lines])


def missing(table: pd.DataFrame) -> list[str]:
    """Runs that a table asks for and does not have, as "A1 seeds 3 4"."""
    alone = table[table["against"].isna()]
    lacking = []
    for name, rows in alone.groupby("experiment", sort=False):
        id = str(name).removesuffix("_smoke")
        there = " ".join(rows["seeds"].dropna()).split()
        seeds = [str(k) for k in EXPERIMENTS[id].seeds if str(k) not in there]
        if seeds:
            lacking.append(f"{id} seeds {' '.join(seeds)}")
    return lacking


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a table's columns for reading; those without any value are left out."""
    rows = table.to_dict("records")
    numbers = ("published", "ours_mean", "ours_std", "ours_worst", *CURVE)
    text = table.assign(
        bar=[bars.in_words(row) for row in rows],
        interval=[_interval(row) for row in rows],
        **{name: [_digits(row[name], row["unit"]) for row in rows] for name in numbers},
    )
    text = text[list(_SHOWN)].astype(object).fillna(tables.BLANK)
    blank = (text == tables.BLANK).all()
    return text.loc[:, ~blank].rename(columns=_SHOWN)


def short(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the columns of `readable` for a terminal, ids above all."""
    wanted = ("id", "published", "ours", "std", "worst", "bar", "verdict")
    text = readable(table)
    return text[[name for name in wanted if name in text]]


def _digits(value: float, unit: str) -> str:
    """Two digits of a percentage, all of a count, four of the rest."""
    if math.isnan(value):
        return tables.BLANK
    if unit in ("%", "points"):
        return f"{value:.2f}"
    return f"{value:,.0f}" if unit == "bytes" else f"{value:.4g}"


def _interval(row: Mapping[Hashable, Any]) -> str:
    if math.isnan(row["low"]):
        return tables.BLANK
    low, high = (_digits(row[end], row["unit"]) for end in ("low", "high"))
    return f"{low} to {high}"
