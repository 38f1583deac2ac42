"""The bars of an experiment: what was asked for, beside what the runs gave.

A file of bars has one bar a row: which runs it is about (`experiment`, `dataset`), an
`expression` over a run's summary, and the `bar` that its mean, worst or spread over
seeds has to reach. A row may set the value against that of another experiment, seed by
seed.
"""

import functools
import math
import operator
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ecogen_jax.report import compare, files, tables
from ecogen_jax.report.runs import Run

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

# What a bar asks; a printed row stands as long as it is the same.
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
_OPERATORS = {"+": operator.add, "-": operator.sub, "/": operator.truediv}
_VERDICTS = {">=": operator.ge, "<=": operator.le, "=": operator.eq}
_EXACT = 12  # decimals: what is left of binary fractions decides no verdict


def read(path: str | Path) -> pd.DataFrame:
    """Reads a file of bars.

    Args:
        path: a CSV with at least the columns id, experiment, dataset, expression (see
            `evaluate`), direction (`>=`, `<=` or `=`), bar (blank: print only) and
            judged (`mean`, `worst` or `std`: which of them is held against the bar).
            It may have scale (of the value, such as 100 for percent), published, and
            against: `- other` or `/ other`, the experiment whose value is subtracted
            or divided by, for every seed that both have.

    Returns:
        One row a bar.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no table, a column is missing, an id is there twice, a
            direction or judged is none of those, a cell that has to be filled is blank,
            a number is none, or a bar with `=` is blank.
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


def judge(bars: pd.DataFrame, found: Sequence[Run]) -> pd.DataFrame:
    """Fills in what the runs gave, and whether it meets each bar.

    Args:
        bars: from `read`.
        found: finished runs; a bar takes those of its experiment and dataset.

    Returns:
        One row a bar, with `COLUMNS` and, where there is `against`, `PAIRED`. The
        verdict is `met`, `missed`, `no bar` (it is blank) or `not run` (as for the
        spread of one seed); std has n - 1, and is NaN for one seed. The deviation is
        ours_mean / published - 1.

    Raises:
        ValueError: an expression cannot be evaluated, or the runs of a bar differ in
            more than the seed or share one.
    """
    rows = [{**bar, **_ours(bar, found)} for bar in bars.to_dict("records")]
    columns = [*COLUMNS, *(PAIRED if "against" in bars else ())]
    table = pd.DataFrame(rows).reindex(columns=columns)
    return table.assign(deviation=deviation(table))


def kept(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Puts back what was printed before of runs that are not at hand.

    Args:
        table: from `judge`.
        path: the CSV to which `write` has put it before, or not yet.

    Returns:
        The table, whose rows without runs have the numbers, command and commit of the
        table there; not those that are asked otherwise since.
    """
    if not path.exists():
        return table
    printed = pd.read_csv(path, dtype={"seeds": "str", "commit": "str"})
    missing = table.loc[table["ours_mean"].isna(), "id"]
    printed = printed[printed["id"].isin(missing) & printed["ours_mean"].notna()]
    asked = table.set_index("id").reindex(printed["id"])
    printed = printed[unchanged(asked, printed).to_numpy()].set_index("id")
    filled = table.set_index("id").astype("object")
    columns = [name for name in _FROM_RUNS if name in printed and name in filled]
    filled.loc[printed.index, columns] = printed[columns]
    filled["deviation"] = deviation(filled)
    return filled.reset_index()[list(table.columns)].infer_objects()


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


def evaluate(expression: str, run: Run) -> float:
    """Evaluates one number of a run.

    Args:
        expression: a dotted path into the summary, or paths joined from left to right
            by one of `+`, `-` and `/`, with spaces around it. Besides the summary's
            own names there is `accuracy.<phase>.<tier>`, the phase being `start` or,
            with its cycle, such as `down_1`, or `down-2_1` for the second in a cycle.
        run: a finished run.

    Returns:
        The number.

    Raises:
        ValueError: the expression is none, or a path leads to no number.
    """
    words = expression.split()
    signs = set(words[1::2]) or {"+"}
    if len(words) % 2 == 0 or len(signs) > 1 or not signs <= _OPERATORS.keys():
        raise ValueError(
            f"expression {expression!r} is not a path, or paths joined by one of "
            f"{', '.join(_OPERATORS)}, such as 'seconds.train + seconds.compile'"
        )
    tree = {**run.summary, "accuracy": _by_phase(run.summary)}
    where = f"{run.path}/summary.json"
    numbers = [compare.number(tree, path, where) for path in words[::2]]
    if "/" in signs and 0.0 in numbers[1:]:
        zero = words[2 * numbers.index(0.0, 1)]
        raise ValueError(
            f"expression {expression!r} divides by {zero}, which is 0 in {where}; "
            "divide by what is not 0 in any run"
        )
    return functools.reduce(_OPERATORS[signs.pop()], numbers)


def write(table: pd.DataFrame, path: Path) -> Path:
    """Writes a CSV, and a Markdown of the same name printed from it.

    Args:
        table: from `judge`.
        path: the CSV; its folder is made where it is missing.

    Returns:
        The Markdown.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)
    printed = readable(pd.read_csv(path))
    title = (
        f"Mean, std and worst are over seeds; commands and commits are in {path.name}."
    )
    markdown = path.with_suffix(".md")
    markdown.write_text(tables.to_markdown(tables.from_frame(title, printed)))
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


def _by_phase(summary: dict[str, Any]) -> dict[str, Any]:
    """Accuracies by phase; every cycle has a start, and the first one is meant."""
    named: dict[str, Any] = {}
    for phase in summary["phases"]:
        name = tables.phase_name(phase).replace(" ", "_")
        named.setdefault(name, phase["accuracy"])
    return named


def _ours(bar: dict[Any, Any], found: Sequence[Run]) -> dict[str, Any]:
    """The columns of one row that come from runs."""
    values, runs = _values(bar, found)
    if values.empty:
        return {"verdict": "not run"}
    ours = {
        "mean": round(values.mean(), _EXACT),
        "std": round(values.std(), _EXACT),
        "worst": _worst(values, bar),
    }
    return {
        **{f"ours_{name}": value for name, value in ours.items()},
        **_interval(values, bar),
        "seeds": " ".join(map(str, values.index)),
        "verdict": _verdict(ours[bar["judged"]], bar),
        "command": "; ".join(dict.fromkeys(map(_command, runs))),
        "commit": " ".join(dict.fromkeys(map(_commit, runs))),
    }


def _values(
    bar: dict[Any, Any], found: Sequence[Run]
) -> "tuple[pd.Series[float], list[Run]]":
    """What a bar judges, by seed; and the runs that it comes from."""
    values, runs = _of_experiment(bar, bar["experiment"], found)
    if isinstance(bar.get("against"), str):
        sign, _, other = bar["against"].partition(" ")
        if sign not in ("-", "/") or not other:
            raise ValueError(
                f"against of bar {bar['id']} is {bar['against']!r}; write '- ' or '/ ' "
                "and an experiment, such as '- relay_cycle'"
            )
        others, other_runs = _of_experiment(bar, other, found)
        zero = others.index[others == 0].intersection(values.index)
        if sign == "/" and len(zero):
            raise ValueError(
                f"bar {bar['id']} divides by {other}, which is 0 in seed {zero[0]}; "
                "divide by what is not 0 in any run, or subtract"
            )
        # Seeds that only one of the two has become NaN.
        values = _OPERATORS[sign](values, others).dropna()
        runs = [run for run in runs + other_runs if run.summary["seed"] in values.index]
    scale = bar.get("scale", math.nan)
    return (values * (1.0 if math.isnan(scale) else scale)).round(_EXACT), runs


def _of_experiment(
    bar: dict[Any, Any], experiment: str, found: Sequence[Run]
) -> "tuple[pd.Series[float], list[Run]]":
    """The expression's value in each run of an experiment, by seed; and these runs."""
    runs = [
        run
        for run in found
        if run.summary["experiment"] == experiment
        and run.summary["dataset"] == bar["dataset"]
    ]
    if runs:
        _check_seeds_alone_differ(bar["id"], runs)
    runs.sort(key=lambda run: run.summary["seed"])
    values = {run.summary["seed"]: evaluate(bar["expression"], run) for run in runs}
    return pd.Series(values, dtype=float), runs


def _interval(values: "pd.Series[float]", bar: dict[Any, Any]) -> dict[str, Any]:
    """Ends of the 95 % interval: of a judged spread, or the mean of what was paired."""
    if bar["judged"] == "std" and len(values) > 1:
        low, high = compare.spread_interval(values)
        return {"low": low, "high": high}
    if not isinstance(bar.get("against"), str):
        return {}
    mean = compare.paired(0 * values, values)
    return {"low": mean.low, "high": mean.high}


def _check_seeds_alone_differ(name: str, runs: Sequence[Run]) -> None:
    paths = ", ".join(str(run.path) for run in runs)
    seeds = [run.summary["seed"] for run in runs]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"bar {name}: one seed twice among {paths}; leave one out")
    differing = compare.differing(runs)
    if differing:
        raise ValueError(
            f"bar {name}: the configs differ in {', '.join(differing)} among {paths}; "
            "name runs that differ in the seed alone"
        )


def _worst(values: "pd.Series[float]", bar: dict[Any, Any]) -> float:
    if bar["direction"] == ">=":
        return values.min()
    if bar["direction"] == "<=":
        return values.max()
    return values[(values - bar["bar"]).abs().idxmax()]


def _verdict(value: float, bar: dict[Any, Any]) -> str:
    if math.isnan(bar["bar"]):
        return "no bar"
    if math.isnan(value):
        return "not run"
    return "met" if _VERDICTS[bar["direction"]](value, bar["bar"]) else "missed"


def _command(run: Run) -> str:
    """The command without what differs from seed to seed and machine to machine."""
    _, script, *words = shlex.split(run.manifest["command"])
    own = tuple(f"--config.{field}=" for field in compare.OWN_TO_A_SEED)
    kept = [word for word in words if not word.startswith(own)]
    # The path of the script depends on the folder that it was called from.
    return shlex.join(["python", f"scripts/{Path(script).name}", *kept])


def _commit(run: Run) -> str:
    """The commits that made a run: of its start, and of each time it was taken up."""
    made = [run.manifest, *run.manifest.get("resumed", [])]
    commits = [
        f"{each['git_commit'] or 'unknown'}{'-dirty' if each['git_dirty'] else ''}"
        for each in made
    ]
    return " ".join(dict.fromkeys(commits))
