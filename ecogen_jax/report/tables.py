"""The tables of a run, as text cells: for the terminal and for the page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.ticker import EngFormatter
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

TIERS = ("cloud", "edge", "end")
LINKS = ("cloud_edge", "edge_end")
COLUMNS = {
    "cloud": "cloud",
    "edge": "edge",
    "end": "end",
    "end_own": "end, own",
    "end_own_worst": "end, worst",
    "end_seen": "end, seen",
    "end_unseen": "end, unseen",
}
BLANK = "-"
NOTHING_SHOWN = "SYNTHETIC DATA: these numbers show nothing"
"""What is said above numbers from generated images."""
SYNTHETIC = f"[bold yellow]{NOTHING_SHOWN}[/]"
"""The same for a terminal."""

_UNBOUNDED = 10_000
"""Columns; a table takes those that it needs."""


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
        One row a phase and a baseline; a column that has no value is left out. The
        gain is the end devices' global test accuracy minus that of local training
        alone, in percentage points; before the first hop there is none.
    """
    alone = summary["baselines"].get("local_only", {}).get("end")
    named = [
        (
            phase_name(phase),
            phase["accuracy"],
            None if phase["phase"] == "start" else alone,
        )
        for phase in shown_phases(summary)
    ]
    named += [
        (f"baseline: {name.replace('_', ' ')}", by_column(scores), None)
        for name, scores in summary["baselines"].items()
    ]
    columns = [
        column
        for column in COLUMNS
        if any(scores.get(column) is not None for _, scores, _ in named)
    ]
    rows = [_accuracy_row(*row, columns) for row in named]
    # "end" is the prefix of its columns and is not repeated: the row is full.
    names = (COLUMNS[column].removeprefix("end, ") for column in columns)
    header = ("phase", *names, "gain of end")
    return TextTable("Test accuracy (%), mean over parties", header, rows)


def by_column(baseline: Mapping[str, Any]) -> dict[str, Any]:
    """Test accuracies of a baseline, named as those of a phase are."""
    if "tier" in baseline:  # a single net, or an ensemble
        return {baseline["tier"]: baseline["test"]}
    return dict(baseline)


def hops(summary: Mapping[str, Any]) -> TextTable:
    """What each hop came to.

    Args:
        summary: the content of `summary.json`.

    Returns:
        One row a hop: test accuracy of a student's teachers together and of students
        (mean, worst), validation accuracy over training (mean, peak, last, largest drop
        in the last half, in percentage points), and seconds of training and compiling
        on this host.
    """
    rows = [
        (
            hop["stage"] if hop["cycle"] == 1 else f"{hop['stage']} {hop['cycle']}",
            *(
                percent(accuracy, digits=2)
                for accuracy in (
                    together(hop, "test"),
                    hop["test"],
                    hop["worst_test"],
                    hop["mean_over_training_validation"],
                    hop["peak_validation"],
                    hop["last_validation"],
                    hop["largest_drop_last_half"],
                )
            ),
            f"{hop['seconds']['train']:.0f}+{hop['seconds']['compile']:.0f}",
        )
        for hop in summary.get("hops", [])
    ]
    header = (
        *("hop", "teachers", "student", "worst"),
        *("mean", "peak", "last", "drop", "host s"),
    )
    title = "Hops: test (%), validation over training (%), host (train+compile)"
    return TextTable(title, header, rows)


def together(hop: Mapping[str, Any], split: str) -> float | None:
    """Accuracy of the teachers of a hop together; None in an older run."""
    found: float | None = hop.get("together", {}).get(split)
    return found


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
    """Returns `phases(summary)` for a terminal of 80 columns."""
    table = phases(summary)
    return to_rich(table, gap=0 if len(table.header) > 6 else 1)


def hop_table(summary: Mapping[str, Any]) -> Table:
    """Returns `hops(summary)` for a terminal of 80 columns."""
    return to_rich(hops(summary))


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
        shown.add_row(*map(escape, row))  # brackets in a name are not markup
    return shown


def print_whole(table: Table) -> None:
    """Prints a table as wide as it is, so that no name or number is cut.

    A terminal that is narrower folds the lines itself; a pipe or file needs no width.
    """
    Console(width=_UNBOUNDED).print(table)


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
    """Returns "start", or the phase with its cycle, such as "down 1" or "down-2 1"."""
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


def percent(fraction: float | int | None, digits: int = 1) -> str:
    """Returns a fraction in percent, rounded; a dash where there is none."""
    if fraction is None or math.isnan(fraction):
        return BLANK
    return f"{100 * fraction:.{digits}f}"


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return BLANK
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _accuracy_row(
    name: str,
    accuracy: Mapping[str, Any],
    alone: float | int | None,
    columns: Sequence[str],
) -> tuple[str, ...]:
    end = accuracy.get("end")
    gain = BLANK
    if alone is not None and end is not None:
        gain = f"{100 * (end - alone):+.1f}"
    return (name, *(percent(accuracy.get(column)) for column in columns), gain)


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
