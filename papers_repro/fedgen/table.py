"""The tables: bars beside claims, the ranking of B4 and the costs of B5."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from ecogen_jax.report import tables, verdicts
from ecogen_jax.report.runs import Run
from papers_repro.fedgen.experiments import (
    CELLS,
    EXPERIMENTS,
    HERE,
    OURS,
    PROTOCOLS,
    num_trials,
    rivals,
)
from papers_repro.paper import Paper, digits, interval

RANKING, COSTS = "B4.ranking", "B5"
"""Tables that have a row for each protocol."""

WHERE = {
    "uplink": "at FedAvg's uplink bytes",
    "tenth": "at a tenth of FedAvg's uplink bytes",
    "flops": "at FedAvg's client FLOPs",
}

_WHICH = ("cell", "budget", "protocol", "out")
_OF_RANKING = {
    "global": ("end", 100),
    "own": ("end_own", 100),
    "own_worst": ("end_own_worst", 100),
    "round": ("round", 1),
}
"""Columns of the ranking beside its accuracy: score and scale."""

_OF_COSTS = {
    "seen": ("training.end_seen", 100),
    "global": ("training.end", 100),
    "end_energy_j": ("training.end_energy_j", 1),
    "carbon_g": ("training.carbon_g", 1),
    "carbon_market_g": ("training.carbon_market_g", 1),
    "up_bytes": ("training.up_bytes", 1),
}
"""Columns of B5 beside its joules: expression and scale."""


def _each_protocol(id: str, **fields: Any) -> list[dict[str, Any]]:
    """A row for each protocol and comparison; `{cell}` and `{protocol}` are filled."""
    return [
        {
            "id": id.format(cell=cell, protocol=name),
            "experiment": f"{cell}.{name}",
            "against": None,
            "dataset": dataset,
            "claim": None,
            "bar": float("nan"),
            "aim": float("nan"),
            "judged": "mean",
            "cell": f"{dataset}, alpha {alpha:g}",
            "protocol": name,
            "out": one.out,
            **fields,
        }
        for cell, (dataset, alpha) in CELLS.items()
        for name, one in PROTOCOLS.items()
    ]


def _ranking_bars() -> pd.DataFrame:
    rows = [
        row
        for budget, where in WHERE.items()
        for row in _each_protocol(
            f"{{cell}}.{budget}.{{protocol}}",
            quantity=f"seen labels, {where}",
            expression=f"at.{budget}.end_seen",
            scale=100,
            unit="%",
            direction=">=",
            kind="measured",
            budget=budget,
        )
    ]
    return pd.DataFrame(rows)


def _cost_bars() -> pd.DataFrame:
    rows = _each_protocol(
        "B5.{cell}.{protocol}",
        quantity="joules of training",
        expression="training.energy_j",
        scale=1,
        unit="J",
        direction="<=",
        kind="modelled",
        budget="all",
    )
    frame = pd.DataFrame(rows)
    return frame.assign(id=frame["id"].str.replace("B5.B4.", "B5.", regex=False))


PAPER = Paper(
    folder=HERE,
    title="Federated protocols: ours beside what was published",
    command="python -m papers_repro.fedgen.reproduce",
    seeds={id: one.seeds for id, one in EXPERIMENTS.items()},
    family=rivals,
    more={RANKING: _ranking_bars(), COSTS: _cost_bars()},
)


def judged(name: str, found: Sequence[Run], *, smoke: bool = False) -> pd.DataFrame:
    """Fills in what the runs gave.

    Args:
        name: of the table, such as "B1".
        found: finished runs, from `curves.enriched`.
        smoke: whether they are those of the smoke, on generated data.

    Returns:
        A bar a row: the columns of `verdicts.judge`; the two tables of protocols have
        which comparison and protocol it is about, and columns of their own.
    """
    if name.startswith("B4"):  # a budget is known once its reference was run
        found = [run for run in found if "at" in run.summary]
    frame = PAPER.asked(name, found, smoke=smoke)
    table = PAPER.judged(frame, found)
    if name not in (RANKING, COSTS):
        return table
    table = table.assign(**{column: frame[column] for column in _WHICH})
    known = frame[table["seeds"].notna()]  # the others stay blank
    fill = _with_ranks if name == RANKING else _with_costs
    return fill(table, known, found)


def _with_ranks(
    table: pd.DataFrame, known: pd.DataFrame, found: Sequence[Run]
) -> pd.DataFrame:
    """Adds other accuracies, rounds, tuning trials, rank, and ours minus each."""
    for column, (score, scale) in _OF_RANKING.items():
        place = "at." + known["budget"] + f".{score}"
        means = _judge(known.assign(expression=place, scale=scale), found)["ours_mean"]
        table[column] = means.reindex(table.index)
    table["trials"] = known["protocol"].map(num_trials).astype("str")
    others = known[known["protocol"] != OURS]
    pairs = others.assign(
        experiment=others["experiment"].map(_ours), against="- " + others["experiment"]
    )
    paired = _judge(pairs, found).rename(columns={"ours_mean": "difference"})
    for column in ("difference", "low", "high"):
        table[column] = paired[column].reindex(table.index)
    groups = table[table["out"] == ""].groupby(["cell", "budget"])["ours_mean"]
    table["rank"] = groups.rank(ascending=False, method="min")
    return table.sort_values(
        ["cell", "budget", "ours_mean"],
        ascending=[True, True, False],
        ignore_index=True,
        key=lambda column: (
            column.map(list(WHERE).index) if column.name == "budget" else column
        ),
    )


def _ours(experiment: str) -> str:
    """The experiment of `OURS` in the comparison of another."""
    suffix = "_smoke" if experiment.endswith("_smoke") else ""
    return f"{experiment.rpartition('.')[0]}.{OURS}{suffix}"


def _with_costs(
    table: pd.DataFrame, known: pd.DataFrame, found: Sequence[Run]
) -> pd.DataFrame:
    """Adds accuracies and the other costs."""
    for column, (expression, scale) in _OF_COSTS.items():
        asked = known.assign(expression=expression, scale=scale)
        table[column] = _judge(asked, found)["ours_mean"].reindex(table.index)
    return table


def _judge(frame: pd.DataFrame, found: Sequence[Run]) -> pd.DataFrame:
    """Numbers of `verdicts.judge`, under the index of the bars."""
    numbers = verdicts.judge(frame, found)[["ours_mean", "low", "high"]]
    return numbers.set_axis(frame.index).astype(float)


def ranking_markdown(name: str, table: pd.DataFrame) -> str:
    """Prints the ranking: a table for each comparison and budget that was run."""
    parts = [f"## {name}\n"]
    for (cell, budget), rows in _run(table).groupby(["cell", "budget"], sort=False):
        shown = pd.DataFrame(
            {
                "rank": [rank_cell(value) for value in rows["rank"]],
                "protocol": rows["protocol"],
                "seen": percents(rows["ours_mean"]),
                "std": percents(rows["ours_std"]),
                "worst": percents(rows["ours_worst"]),
                "global": percents(rows["global"]),
                "own": percents(rows["own"]),
                "worst 10 %": percents(rows["own_worst"]),
                "round": [f"{value:.4g}" for value in rows["round"]],
                "trials": rows["trials"],
                f"{OURS} - it": percents(rows["difference"]),
                "95 %": [
                    interval({**row, "unit": "%"}) for row in rows.to_dict("records")
                ],
                "seeds": rows["seeds"],
            }
        )
        title = f"### {cell}, {WHERE[str(budget)]}"
        parts.append(tables.to_markdown(tables.from_frame(title, shown)))
    return "\n".join([*parts, _unranked(table), *PAPER.origin(name, table)])


def costs_markdown(name: str, table: pd.DataFrame) -> str:
    """Prints accuracy and costs: a table for each comparison that was run."""
    parts = [f"## {name}\n"]
    for cell, rows in _run(table).groupby("cell", sort=False):
        shown = pd.DataFrame(
            {
                "protocol": rows["protocol"],
                "seen": percents(rows["seen"]),
                "global": percents(rows["global"]),
                "all": humans(rows["ours_mean"], "J"),
                "of it devices": humans(rows["end_energy_j"], "J"),
                "CO2e": humans(rows["carbon_g"], "g"),
                "market-based": humans(rows["carbon_market_g"], "g"),
                "sent up": humans(rows["up_bytes"], "B"),
                "seeds": rows["seeds"],
            }
        )
        title = f"### {cell}: accuracy (%) and what training cost (modelled)"
        parts.append(tables.to_markdown(tables.from_frame(title, shown)))
    parts += [f"![Accuracy against energy and carbon]({COSTS}.png)\n"]
    return "\n".join([*parts, _unranked(table), *PAPER.origin(name, table)])


PRINTERS: Mapping[str, Callable[[str, pd.DataFrame], str]] = {
    RANKING: ranking_markdown,
    COSTS: costs_markdown,
}
"""What makes the Markdown of the two tables of protocols."""


def _run(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["ours_mean"].notna()]


def _unranked(table: pd.DataFrame) -> str:
    """Says which of the protocols are out of the ranking, and why."""
    names = _run(table)["protocol"].unique()
    said = [f"{name}: {PROTOCOLS[name].out}" for name in names if PROTOCOLS[name].out]
    return f"Out of the ranking: {'; '.join(said)}.\n" if said else ""


def percents(values: "pd.Series[float]") -> list[str]:
    """Percentages as cells of a table."""
    return [digits(value, "%") for value in values]


def rank_cell(value: float) -> str:
    """A rank as a cell; a dash where a protocol is out of the ranking."""
    return tables.BLANK if pd.isna(value) else f"{value:.0f}"


def humans(values: "pd.Series[float]", unit: str) -> list[str]:
    """Amounts as cells, with SI prefixes."""
    return [tables.human(value, unit) for value in values]
