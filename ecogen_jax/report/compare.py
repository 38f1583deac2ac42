"""Comparison of groups of runs: means, worst seeds, paired differences."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from scipy import stats

from ecogen_jax import config_scope
from ecogen_jax.config import completed
from ecogen_jax.report.runs import Run


class Paired(NamedTuple):
    """Group b minus group a, paired by seed.

    Attributes:
        mean_a: mean of the reference group.
        mean_b: mean of the other group.
        mean_difference: mean over seeds of b - a.
        low: lower end of the 95 % interval; None with fewer than 2 seeds.
        high: upper end; None with fewer than 2 seeds.
        n: number of seeds.
        p: two-sided p-value; None with fewer than 2 seeds, and where the difference
            is the same for every seed.
    """

    mean_a: float
    mean_b: float
    mean_difference: float
    low: float | None
    high: float | None
    n: int
    p: float | None


OWN_TO_A_SEED = ("seed", "run.workdir", "protocol.start_from")
"""Fields in which seeds of one config differ; each starts from the run of its own."""


def values(
    runs: Sequence[Run], quantity: str, by: Sequence[str] = ("experiment",)
) -> pd.DataFrame:
    """Reads one quantity out of every run's summary.

    Args:
        runs: finished runs.
        quantity: dotted path into `summary.json`, such as
            `phases.-1.accuracy.end` or `ledger.edge.energy_j`.
        by: what the runs are grouped by: `experiment`, `dataset`, or the dotted
            path of a config field, such as `data.alpha`.

    Returns:
        One row a run: path, group, experiment, dataset, seed, value.

    Raises:
        ValueError: a path leads to nothing, or not to a number.
    """
    rows = []
    for run in runs:
        rows.append(
            {
                "path": str(run.path),
                "group": group_name(run, by),
                "experiment": run.summary["experiment"],
                "dataset": run.summary["dataset"],
                "seed": run.summary["seed"],
                "value": number(run.summary, quantity, f"{run.path}/summary.json"),
            }
        )
    return pd.DataFrame(rows)


def number(tree: Any, path: str, where: str) -> float:
    """Reads one number.

    Args:
        tree: nested dictionaries and lists.
        path: dotted path into it; a number is a position in a list.
        where: what an error calls the tree.

    Returns:
        The number.

    Raises:
        ValueError: the path leads to nothing, or not to a number.
    """
    value = _follow(tree, path, where)
    if isinstance(value, bool) or not isinstance(value, int | float):
        remedy = _choices(value) if isinstance(value, dict | list) else "name another"
        if value is None:
            remedy = "this run has no such value, leave it out or name another"
        raise ValueError(f"{path!r} is {value!r} in {where}, not a number; {remedy}")
    return float(value)


def group_name(run: Run, by: Sequence[str]) -> str:
    """Returns the group that a run belongs to; `by` as in `values`."""
    known = {**run.config, "dataset": run.summary["dataset"]}
    names = (str(_follow(known, field, f"{run.path}/config.json")) for field in by)
    return " ".join(names)


def differing(runs: Sequence[Run]) -> list[str]:
    """Config fields with an effect in which runs differ, but for `OWN_TO_A_SEED`."""
    read = [config_scope.effective(completed(run.config)) for run in runs]
    # As text, since lists cannot be compared by `nunique`.
    configs = pd.json_normalize(read).map(str)
    return [
        field
        for field in map(str, configs)
        if field not in OWN_TO_A_SEED and configs[field].nunique() > 1
    ]


def check_alike(runs: Sequence[Run], by: Sequence[str]) -> None:
    """Checks that the runs of a group are seeds of one config.

    Raises:
        ValueError: those of a group differ in more; the fields are named.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(group_name(run, by), []).append(run)
    for name, group in groups.items():
        fields = differing(group)
        if fields:
            raise ValueError(
                f"group {name!r}: the configs differ in {', '.join(fields)} among "
                f"{', '.join(str(run.path) for run in group)}; name runs that differ "
                "in the seed alone, or group by these fields (--by)"
            )


def by_seed(frame: pd.DataFrame) -> dict[str, "pd.Series[float]"]:
    """Splits `values` into groups.

    Args:
        frame: from `values`.

    Returns:
        For each group, in order of appearance, its values by seed.

    Raises:
        ValueError: a group holds two runs of one seed.
    """
    twice = frame[frame.duplicated(["group", "seed"], keep=False)]
    if not twice.empty:
        group, seed = twice[["group", "seed"]].iloc[0]
        same = twice[(twice["group"] == group) & (twice["seed"] == seed)]
        raise ValueError(
            f"group {group!r} has {len(same)} runs of seed {seed}: "
            f"{', '.join(same['path'])}; name one of them, or group by the field "
            "that they differ in (--by)"
        )
    groups = frame.groupby("group", sort=False)
    return {
        str(name): rows.set_index("seed")["value"].sort_index() for name, rows in groups
    }


def paired(a: "pd.Series[float]", b: "pd.Series[float]") -> Paired:
    """Compares two groups seed by seed, with a 95 % t-interval.

    The interval is d +- t(0.975, n - 1) s / sqrt(n), with d and s the mean and the
    standard deviation of the n differences b - a (Student 1908).

    Args:
        a: values of the reference group, indexed by seed.
        b: values of the other group, indexed by seed.

    Returns:
        The comparison.

    Raises:
        ValueError: a seed is in one group alone.
    """
    unmatched = sorted(set(a.index) ^ set(b.index))
    if unmatched:
        raise ValueError(
            f"seeds {unmatched} are in one group alone; both have to hold the same "
            f"seeds ({sorted(a.index)} against {sorted(b.index)}): run the missing ones"
        )
    difference = b - a
    low, high, p = _interval(difference)
    mean = float(difference.mean())
    return Paired(a.mean(), b.mean(), mean, low, high, len(difference), p)


def spread_interval(series: "pd.Series[float]") -> tuple[float, float]:
    """The 95 % interval of a standard deviation.

    Its ends are s sqrt((n - 1) / q), with s that of the n values and q the quantiles
    0.975 and 0.025 of the chi-square distribution with n - 1 degrees of freedom, for
    values from a normal distribution.

    Args:
        series: at least 2 values.
    """
    freedom = len(series) - 1
    upper, lower = stats.chi2.ppf((0.975, 0.025), freedom)
    squares = freedom * series.var()
    return math.sqrt(squares / upper), math.sqrt(squares / lower)


def groups_table(
    groups: Mapping[str, "pd.Series[float]"], quantity: str
) -> pd.DataFrame:
    """Describes every group.

    Args:
        groups: values by seed, from `by_seed`.
        quantity: the quantity's dotted path, which says what is worst.

    Returns:
        A frame with quantity, group, mean, std (n - 1; NaN for one seed), worst, n,
        seeds.
    """
    rows = []
    for name, series in groups.items():
        worst = series.min() if higher_is_better(quantity) else series.max()
        rows.append(
            {
                "quantity": quantity,
                "group": name,
                "mean": series.mean(),
                "std": series.std(),
                "worst": worst,
                "n": len(series),
                "seeds": " ".join(map(str, series.index)),
            }
        )
    return pd.DataFrame(rows)


def pairs_table(
    groups: Mapping[str, "pd.Series[float]"], quantity: str
) -> pd.DataFrame:
    """Compares every pair of groups; of each pair the earlier is the reference.

    Args:
        groups: values by seed, from `by_seed`.
        quantity: the quantity's dotted path.

    Returns:
        A frame with quantity, reference, group and the fields of `Paired`.
    """
    rows = [
        {
            "quantity": quantity,
            "reference": reference,
            "group": group,
            **paired(groups[reference], groups[group])._asdict(),
        }
        for reference, group in itertools.combinations(groups, 2)
    ]
    return pd.DataFrame(rows)


def higher_is_better(quantity: str) -> bool:
    """Returns True for accuracies; everything else in a summary is a cost."""
    first, *rest = quantity.split(".")
    return first in ("phases", "hops", "baselines") and _COSTS.isdisjoint(rest)


_COSTS = {"energy_j", "largest_drop_last_half", "link", "seconds"}
"""What stands beside accuracies in a summary."""


def _interval(
    difference: "pd.Series[float]",
) -> tuple[float | None, float | None, float | None]:
    """Low, high and p of a mean difference."""
    n = len(difference)
    if n < 2:
        return None, None, None
    mean = float(difference.mean())
    error = float(difference.std()) / math.sqrt(n)
    if error == 0:
        return mean, mean, None
    reach = float(stats.t.ppf(0.975, n - 1)) * error
    p = 2 * float(stats.t.sf(math.fabs(mean) / error, n - 1))
    return mean - reach, mean + reach, p


def _follow(tree: Any, path: str, where: str) -> Any:
    """Goes down a dotted path; a number is a position in a list."""
    for part in path.split("."):
        try:
            tree = tree[int(part)] if isinstance(tree, list) else tree[part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise ValueError(
                f"{path!r} leads nowhere in {where}: no {part!r}; {_choices(tree)}"
            ) from None
    return tree


def _choices(tree: Any) -> str:
    if isinstance(tree, dict | list) and not tree:
        return "it is empty"
    if isinstance(tree, dict):
        return f"there are {', '.join(map(str, tree))}"
    if isinstance(tree, list):
        return f"there are {len(tree)} entries, counted from 0 or back from -1"
    return f"{tree!r} has nothing below it"
