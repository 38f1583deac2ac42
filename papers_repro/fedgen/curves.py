"""Accuracy against what it has cost so far, read from run folders.

A federation is known at every round that was evaluated, a relay cycle after each of its
phases. Costs are those of getting there: answering the task afterwards is left out.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ecogen_jax.report import tables
from ecogen_jax.report.runs import Run
from papers_repro.fedgen.experiments import reference

SCORES = ("end_seen", "end", "end_own", "end_own_worst", "cloud")
"""Test accuracies of a state, as fractions; see `ecogen_jax.run.evaluate.end_means`."""

COSTS = (
    *("up_bytes", "end_flops", "end_energy_j", "energy_j"),
    *("carbon_g", "carbon_market_g"),
)
"""Costs so far: what devices sent and computed, and all energy and carbon; `carbon_g`
is location-based."""

BUDGETS = {
    "uplink": ("up_bytes", 1.0),
    "tenth": ("up_bytes", 0.1),
    "flops": ("end_flops", 1.0),
}
"""Budgets of B4: which cost, and the share of the reference's total."""

TOLERANCE = 0.01
"""What a budget may be exceeded by: label counts beside a net are no round less."""

EARLY = 20
"""The round of `B1.round20`."""

Curves = dict[tuple[str, str], pd.DataFrame]
"""Comparison and protocol -> mean states over seeds; see `curve`."""

_LEDGER = (
    *("flops", "up_bytes", "energy_j"),
    *("carbon_location_g", "carbon_market_g"),
)
_SMOKE = "_smoke"


def curve(run: Run) -> pd.DataFrame:
    """Reads the states of a run.

    Args:
        run: a finished run.

    Returns:
        One row a state, from before the first round on: `round` (rounds of a
        federation, else the number of the phase), `SCORES` and `COSTS`.
    """
    scored = run.metrics.get("event", pd.Series(dtype="str")) == "scores"
    return _by_round(run) if scored.any() else _by_phase(run)


def _by_round(run: Run) -> pd.DataFrame:
    """The states of a federation.

    The ledger has totals. A place's share of them at a round is that of its FLOPs, for
    a link that of the bytes between devices and edges.
    """
    lines = run.metrics[run.metrics["round"].notna()]
    scores = lines[lines["event"] == "scores"].set_index("round")
    sent = lines[lines["event"] == "round"].set_index("round")
    sent = sent[["link/up_bytes", "link/down_bytes"]]
    done = lines[lines["event"].isna()].set_index("round")
    total = _training(run).groupby("place")[list(_LEDGER)].sum()
    share = pd.DataFrame(
        {
            place: _share(done.get(f"{place}/flops", sent.sum(axis=1)))
            for place in total.index
        }
    )
    all_places = share @ total
    costs = pd.DataFrame(
        {
            "up_bytes": _of_place(share, total, "edge_end", "up_bytes"),
            "end_flops": _of_place(share, total, "end", "flops"),
            "end_energy_j": _of_place(share, total, "end", "energy_j"),
            "energy_j": all_places["energy_j"],
            "carbon_g": all_places["carbon_location_g"],
            "carbon_market_g": all_places["carbon_market_g"],
        }
    )
    rows = scores[list(SCORES)].join(costs, how="left").reset_index()
    begun = run.summary["phases"][0]["accuracy"]
    first = {"round": 0, **_scores(begun), **dict.fromkeys(COSTS, 0.0)}
    return pd.concat([pd.DataFrame([first]), rows], ignore_index=True).astype(float)


def _share(values: "pd.Series[float]") -> "pd.Series[float]":
    """What is done of the whole after each round; nothing where there is nothing."""
    whole = values.sum()
    return values.cumsum() / whole if whole else values


def _of_place(
    share: pd.DataFrame, total: pd.DataFrame, place: str, column: str
) -> "pd.Series[float]":
    """One place's cost after each round; zero where it has none."""
    amounts = total[column].to_dict()
    own = share.get(place, 0.0 * share["end"])
    return own * float(amounts.get(place, 0.0))


def _by_phase(run: Run) -> pd.DataFrame:
    """The states of a relay cycle: before its first phase, and after each."""
    ledger, rows = _training(run), []
    for number, phase in enumerate(tables.shown_phases(run.summary)):
        here = (ledger["cycle"] == phase["cycle"]) & (ledger["phase"] == phase["phase"])
        if phase["phase"] == "start":
            here = ledger["cycle"] == 0
        ends = here.to_numpy().nonzero()[0]
        spent = ledger.iloc[: ends.max() + 1 if len(ends) else 0]
        device = spent[spent["place"] == "end"]
        up = spent.loc[spent["place"] == "edge_end", "up_bytes"]
        rows.append(
            {
                "round": number,
                **_scores(phase["accuracy"]),
                "up_bytes": up.sum(),
                "end_flops": device["flops"].sum(),
                "end_energy_j": device["energy_j"].sum(),
                "energy_j": spent["energy_j"].sum(),
                "carbon_g": spent["carbon_location_g"].sum(),
                "carbon_market_g": spent["carbon_market_g"].sum(),
            }
        )
    return pd.DataFrame(rows).astype(float)


def _training(run: Run) -> pd.DataFrame:
    return run.ledger[run.ledger["phase"] != "inference"]


def _scores(accuracy: dict[str, Any]) -> dict[str, Any]:
    return {name: accuracy[name] for name in SCORES}


def within(states: pd.DataFrame, cost: str, most: float) -> dict[str, float]:
    """The last state that costs no more.

    Args:
        states: from `curve`.
        cost: one of `COSTS`, or "round".
        most: the budget, `TOLERANCE` may come on top.
    """
    affordable = states[states[cost] <= most * (1 + TOLERANCE)]
    return {str(name): float(value) for name, value in affordable.iloc[-1].items()}


def enriched(found: Sequence[Run]) -> list[Run]:
    """Adds to the summaries what the expressions of the bars ask for.

    Args:
        found: finished runs.

    Returns:
        The runs, whose summary has besides: `training`, the last state; `round20`, the
        state at round 20 or the last one before; `device_round`, bytes of one device in
        one round of a federation; and `at.<budget>`, the state that a budget allows,
        for runs of B4 whose reference was run with the same seed.
    """
    known = {(run.summary["experiment"], run.summary["seed"]): run for run in found}
    curves = {key: curve(run) for key, run in known.items()}

    def more(run: Run) -> dict[str, Any]:
        name, seed = run.summary["experiment"], run.summary["seed"]
        suffix = _SMOKE if name.endswith(_SMOKE) else ""
        measure = curves.get((reference(name.removesuffix(_SMOKE)) + suffix, seed))
        states = curves[name, seed]
        added: dict[str, Any] = {
            "training": states.iloc[-1].to_dict(),
            "round20": within(states, "round", EARLY),
            "device_round": _device_round(run),
        }
        if name.startswith("B4.") and measure is not None:
            added["at"] = {
                budget: within(states, cost, share * measure[cost].iloc[-1])
                for budget, (cost, share) in BUDGETS.items()
            }
        return added

    return [run._replace(summary={**run.summary, **more(run)}) for run in found]


def _device_round(run: Run) -> dict[str, float]:
    """Bytes that one sampled device sends and is sent in a round."""
    if run.config["protocol"]["name"] == "relay_cycle":  # all devices, in every cycle
        return {}
    section = run.config["federated"]
    asked = section["rounds"] * section["active"]
    link = run.summary["ledger"]["link"]["edge_end"]
    return {name: link[name] / asked for name in ("up_bytes", "down_bytes")}
