"""The tables of a run, as text cells: for the terminal and for the page."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.ticker import EngFormatter
from rich import box
from rich.table import Table

TIERS = ("cloud", "edge", "end")
LINKS = ("cloud_edge", "edge_end")
COLUMNS = {"cloud": "cloud", "edge": "edge", "end": "end", "end_own": "end, own data"}
BLANK = "-"


class TextTable(NamedTuple):
    """A table of text cells; the first column names the row."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


def phases(summary: Mapping[str, Any]) -> TextTable:
    """Accuracy by phase and tier, above the baselines.

    Args:
        summary: the content of `summary.json`.

    Returns:
        One row a phase and a baseline. The gain is the end devices' global test
        accuracy minus that of local training alone, in percentage points; before
        the first hop there is none.
    """
    alone = summary["baselines"].get("local_only", {}).get("end")
    rows = [
        _accuracy_row(
            phase_name(phase),
            phase["accuracy"],
            None if phase["phase"] == "start" else alone,
        )
        for phase in shown_phases(summary)
    ]
    rows += [
        _accuracy_row(f"baseline: {name.replace('_', ' ')}", accuracy, None)
        for name, accuracy in summary["baselines"].items()
    ]
    header = ("phase", *COLUMNS.values(), "gain of end")
    return TextTable("Test accuracy (%), mean over parties", header, rows)


def ledger(summary: Mapping[str, Any]) -> TextTable:
    """What the run cost, by tier and link.

    Args:
        summary: the content of `summary.json`.

    Returns:
        One row a tier and a link; energy with the ends of its interval.
    """
    costs = summary["ledger"]
    rows = [_cost_row(tier, costs[tier]) for tier in TIERS]
    rows += [_cost_row(link, costs["link"][link]) for link in LINKS]
    header = (
        "place",
        "compute",
        "up",
        "down",
        "energy",
        "low",
        "high",
        "CO2e location",
        "CO2e market",
        "kind",
    )
    return TextTable("Ledger of the simulated network", header, rows)


def phase_table(summary: Mapping[str, Any]) -> Table:
    """Returns `phases(summary)` for a terminal."""
    return to_rich(phases(summary))


def ledger_table(summary: Mapping[str, Any]) -> Table:
    """Returns `ledger(summary)` for a terminal of 80 columns.

    A kind that all rows share stands in the title, and market-based carbon is left
    out where it is the location-based one everywhere.
    """
    title, header, rows = ledger(summary)
    cells = pd.DataFrame(rows, columns=list(header))
    notes = []
    if cells["kind"].nunique() == 1:
        notes.append(cells.pop("kind")[0])
    same_carbon = cells["CO2e location"].equals(cells["CO2e market"])
    if same_carbon:
        cells = cells.drop(columns="CO2e market")
        notes.append("market-based CO2e alike")
    cells.columns = cells.columns.str.replace("CO2e ", "CO2e\n")
    if notes:
        title += f" ({'; '.join(notes)})"
    return to_rich(from_frame(title, cells), gap=1 if same_carbon else 0)


def to_rich(table: TextTable, gap: int = 1) -> Table:
    """Returns `table` for a terminal, its columns `gap` + 1 spaces apart."""
    shown = Table(
        title=table.title, box=box.SIMPLE, pad_edge=False, padding=(0, gap, 0, 0)
    )
    for number, name in enumerate(table.header):
        shown.add_column(name, justify="left" if number == 0 else "right")
    for row in table.rows:
        shown.add_row(*row)
    return shown


def to_markdown(table: TextTable) -> str:
    """Returns `table` as Markdown, below its title."""
    rule = ("---", *["---:"] * (len(table.header) - 1))
    lines = [f"| {' | '.join(row)} |" for row in (table.header, rule, *table.rows)]
    return "\n".join([table.title, "", *lines, ""])


def from_frame(title: str, frame: pd.DataFrame) -> TextTable:
    """Returns a frame's rows, numbers with four digits; a dash where one is missing."""
    rows = [tuple(map(_cell, row)) for row in frame.itertuples(index=False)]
    return TextTable(title, tuple(map(str, frame.columns)), rows)


def shown_phases(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The phases, without a later cycle's start: it is the end of the one before."""
    first, *later = summary["phases"]
    return [first, *(phase for phase in later if phase["phase"] != "start")]


def phase_name(phase: Mapping[str, Any]) -> str:
    """Returns "start", or the phase with its cycle, such as "down 1"."""
    if phase["phase"] == "start":
        return "start"
    return f"{phase['phase']} {phase['cycle']}"


def human(value: float | int | None, unit: str) -> str:
    """Returns three digits of a value with an SI prefix, such as "1.23 kJ".

    Args:
        value: in `unit`; None where there is none.
        unit: the unit without prefix.
    """
    if value is None:
        return BLANK
    if value == 0:
        return f"0 {unit}"
    return EngFormatter(unit)(float(f"{value:.3g}"))


def percent(fraction: float | int | None) -> str:
    """Returns a fraction in percent with one digit; a dash where there is none."""
    if fraction is None or math.isnan(fraction):
        return BLANK
    return f"{100 * fraction:.1f}"


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return BLANK
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _accuracy_row(
    name: str, accuracy: Mapping[str, Any], alone: float | int | None
) -> tuple[str, ...]:
    end = accuracy.get("end")
    gain = BLANK
    if alone is not None and end is not None:
        gain = f"{100 * (end - alone):+.1f}"
    return (name, *(percent(accuracy.get(column)) for column in COLUMNS), gain)


def _cost_row(name: str, cost: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        name,
        human(cost.get("flops"), "FLOP"),
        human(cost.get("up_bytes"), "B"),
        human(cost.get("down_bytes"), "B"),
        human(cost["energy_j"], "J"),
        human(cost["energy_low_j"], "J"),
        human(cost["energy_high_j"], "J"),
        human(cost["carbon_location_g"], "g"),
        human(cost["carbon_market_g"], "g"),
        cost["kind"],
    )
