"""B5 as a ranking: who is ahead once training has cost what FedAvg's has."""

import math

import pandas as pd

from ecogen_jax.report import tables
from papers_repro.fedgen.curves import within
from papers_repro.fedgen.experiments import CELLS, PROTOCOLS, REFERENCE

Curves = dict[tuple[str, str], pd.DataFrame]
"""Comparison and protocol -> states: `round`, `end_seen`, `energy_j`."""


def ranking(states: Curves, cell: str) -> pd.DataFrame:
    """Reads every protocol at its last state that costs at most 1 % more than FedAvg's.

    Args:
        states: mean curves over seeds.
        cell: the comparison.

    Returns:
        rank (NaN where a protocol is out of the ranking), protocol, seen (%), round and
        energy_j, the best first; no row without the reference.
    """
    columns = ["rank", "protocol", "seen", "round", "energy_j"]
    if (cell, REFERENCE) not in states:
        return pd.DataFrame(columns=columns)
    most = float(states[cell, REFERENCE]["energy_j"].iloc[-1])
    rows = []
    for protocol, one in PROTOCOLS.items():
        if (cell, protocol) not in states:
            continue
        reached = within(states[cell, protocol], "energy_j", most)
        rows.append(
            {
                "protocol": protocol,
                "seen": 100 * reached["end_seen"],
                "round": reached["round"],
                "energy_j": reached["energy_j"],
                "out": one.out,
            }
        )
    frame = pd.DataFrame(rows).sort_values("seen", ascending=False, ignore_index=True)
    ranked = frame["seen"].where(frame["out"] == "")
    return frame.assign(rank=ranked.rank(ascending=False, method="min"))[columns]


def markdown(states: Curves) -> str:
    """Prints the ranking of every comparison whose reference was run."""
    parts = ["## B5 at equal energy\n"]
    for cell, (dataset, alpha) in CELLS.items():
        rows = ranking(states, cell)
        if rows.empty:
            continue
        shown = pd.DataFrame(
            {
                "rank": [
                    tables.BLANK if math.isnan(rank) else f"{rank:.0f}"
                    for rank in rows["rank"]
                ],
                "protocol": rows["protocol"],
                "seen": [f"{value:.2f}" for value in rows["seen"]],
                "round": [f"{value:.0f}" for value in rows["round"]],
                "energy": [tables.human(value, "J") for value in rows["energy_j"]],
            }
        )
        title = f"### {dataset}, alpha {alpha:g}, at FedAvg's joules of training"
        parts.append(tables.to_markdown(tables.from_frame(title, shown)))
    parts.append(
        "Means over seeds, read from the curves in B5.csv at the last state that costs "
        "at most 1 % more than FedAvg's last, without intervals: a rank above a "
        "neighbour by a point or two is no claim.\n"
    )
    return "\n".join(parts)
