"""B5 as a ranking: who is ahead once training has cost what FedAvg's has."""

import pandas as pd

from ecogen_jax.report import tables
from papers_repro.fedgen.curves import Curves, within
from papers_repro.fedgen.experiments import CELLS, PROTOCOLS, REFERENCE
from papers_repro.fedgen.table import humans, percents, rank_cell


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
                "rank": [rank_cell(rank) for rank in rows["rank"]],
                "protocol": rows["protocol"],
                "seen": percents(rows["seen"]),
                "round": [f"{value:.0f}" for value in rows["round"]],
                "energy": humans(rows["energy_j"], "J"),
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
