"""Compares runs with bars: means, spreads and worst seeds, and the verdicts."""

import functools
import math
import operator
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ecogen_jax.report import bars, compare, tables
from ecogen_jax.report.runs import Run

_OPERATORS = {"+": operator.add, "-": operator.sub, "/": operator.truediv}
_VERDICTS = {">=": operator.ge, "<=": operator.le, "=": operator.eq}
_EXACT = 12  # decimals: rounding errors of binary fractions must not decide a verdict


def judge(frame: pd.DataFrame, found: Sequence[Run]) -> pd.DataFrame:
    """Fills in the results of the runs, and whether they meet each bar.

    Args:
        frame: from `bars.read`.
        found: finished runs; a bar takes those of its experiment and dataset.

    Returns:
        One row a bar, with `bars.COLUMNS` and, where there is `against`,
        `bars.PAIRED`. The verdict is `met`, `missed`, `no bar` (it is blank) or `not
        run` (as for the spread of one seed); std has n - 1, and is NaN for one seed.
        The deviation is ours_mean / published - 1.

    Raises:
        ValueError: an expression cannot be evaluated, or the runs of a bar differ in
            more than the seed or share one.
    """
    rows = [{**bar, **_ours(bar, found)} for bar in frame.to_dict("records")]
    columns = [*bars.COLUMNS, *(bars.PAIRED if "against" in frame else ())]
    table = pd.DataFrame(rows).reindex(columns=columns)
    return table.assign(deviation=bars.deviation(table))


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
        ValueError: the expression is not a valid one, or a path leads to no number.
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
        # Seeds that only one of the two has give NaN.
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
    differing = compare.differing(runs)
    if not differing and len(set(seeds)) < len(seeds):
        raise ValueError(f"bar {name}: one seed twice among {paths}; leave one out")
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
    # The path of the script depends on the working directory.
    return shlex.join(["python", f"scripts/{Path(script).name}", *kept])


def _commit(run: Run) -> str:
    """The commits that made a run: of its start, and of each time it was taken up."""
    made = [run.manifest, *run.manifest.get("resumed", [])]
    commits = [
        f"{each['git_commit'] or 'unknown'}{'-dirty' if each['git_dirty'] else ''}"
        for each in made
    ]
    return " ".join(dict.fromkeys(commits))
