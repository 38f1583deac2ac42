"""Tables of energy and carbon beyond the ledger's sums: parts, totals, forecasts."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ecogen_jax.report.tables import LINKS, TIERS, TextTable, human


def all_tables(summary: Mapping[str, Any]) -> list[TextTable]:
    """The tables below for a finished run; none for a run of an older version."""
    if "sci" not in summary:
        return []
    return [parts(summary), totals(summary["total"]), intensity(summary), host(summary)]


def parts(summary: Mapping[str, Any]) -> TextTable:
    """What the energy and carbon of each place is made of.

    Args:
        summary: the content of `summary.json`.

    Returns:
        One row a tier and a link: joules while computing, while waiting and of the
        building; grams of making the devices; litres of water.
    """
    costs = summary["ledger"]
    places = {tier: costs[tier] for tier in TIERS}
    places |= {link: costs["link"][link] for link in LINKS}
    rows = [
        (
            place,
            *(
                human(cost[f"{part}_j"], "J")
                for part in ("dynamic", "idle", "overhead")
            ),
            human(cost["embodied_g"], "g"),
            human(cost["water_l"], "L"),
        )
        for place, cost in places.items()
    ]
    header = ("place", "dynamic", "idle", "overhead", "embodied CO2e", "water")
    return TextTable("Parts of the ledger", header, rows)


def totals(spread: Mapping[str, Any]) -> TextTable:
    """Joules and grams in all, with their intervals.

    Args:
        spread: the `total` of `summary.json`, or the content of `uncertainty.json`.

    Returns:
        One row a quantity.
    """
    rows = [
        (name, *(human(spread[field][end], unit) for end in ("value", "low", "high")))
        for name, field, unit in (
            ("energy", "energy_j", "J"),
            ("CO2e location", "carbon_g", "g"),
        )
    ]
    title = "Total, with 90 % interval over all constants"
    return TextTable(title, ("quantity", "value", "low", "high"), rows)


def intensity(summary: Mapping[str, Any]) -> TextTable:
    """Software Carbon Intensity for each functional unit.

    Args:
        summary: the content of `summary.json`.

    Returns:
        One row a functional unit; operation (location-based), making, and SCI.
    """
    sci = summary["sci"]
    rows: list[tuple[str, ...]] = [
        (
            unit,
            str(count),
            human(sci["operational_g"], "g"),
            human(sci["embodied_g"], "g"),
            human(sci[f"g_per_{unit}"], "g"),
        )
        for unit, count in (
            ("cycle", sci["cycles"]),
            ("inference", sci["inferences"]),
        )
    ]
    left_out = [] if sci["includes_idle"] else ["waiting parties"]
    left_out += [f"making of {tier}" for tier in sci["embodied_unknown"]]
    title = "Software Carbon Intensity (ISO/IEC 21031)"
    if left_out:
        title += f", without {', '.join(left_out)}"
    return TextTable(title, ("unit", "count", "O", "M", "SCI"), rows)


def host(summary: Mapping[str, Any]) -> TextTable:
    """What the simulating machine itself used, measured where it has counters.

    Args:
        summary: the content of `summary.json`.

    Returns:
        One row.
    """
    used = summary["host_energy"]
    ratio = used["ratio"]
    row = (
        used["kind"],
        human(used["measured_j"], "J"),
        human(used["modelled_j"], "J"),
        "-" if ratio is None else f"{ratio:.2f}",
        used["reason"],
    )
    header = ("kind", "measured", "modelled", "ratio", "how")
    return TextTable("Energy of this host (not in the ledger)", header, [row])


def forecast(entries: pd.DataFrame) -> TextTable:
    """What a run would cost, by phase and place.

    Args:
        entries: one row a ledger entry, columns named as its fields.

    Returns:
        One row a phase and place in the order of the run, all cycles together.
    """
    key = [entries["phase"] + "/" + entries["place"]]
    sums = entries.groupby(key, sort=False).sum(numeric_only=True)
    rows: list[tuple[str, ...]] = [
        (
            *str(name).split("/"),
            human(cost["flops"], "FLOP"),
            human(cost["up_bytes"] + cost["down_bytes"], "B"),
            human(cost["energy_j"], "J"),
            f"{human(cost['energy_low_j'], 'J')} - {human(cost['energy_high_j'], 'J')}",
            human(cost["carbon_location_g"], "g"),
        )
        for name, cost in sums.to_dict("index").items()
    ]
    header = ("phase", "place", "compute", "bytes", "energy", "interval", "CO2e")
    return TextTable("Forecast, all cycles together", header, rows)
