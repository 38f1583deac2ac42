"""Published energy and carbon tables, computed again from their own inputs.

A file of ``cells/`` holds the printed values beside the inputs that its source prints;
`FORMULAS` says what each quantity is made of, by the functions of
`ecogen_jax.energy.accounting`. Nothing is fitted.
"""

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import pandas as pd

from ecogen_jax.energy.accounting import (
    carbon_g,
    carbon_per_area_g,
    convert,
    embodied_kg,
    energy_kwh,
    sci_g,
    water_l,
)
from ecogen_jax.energy.predict import training_flops
from papers_repro.energy import rows

Cell = Mapping[str, Any]
HOURS_PER_YEAR = 365 * 24


def table(name: str) -> pd.DataFrame:
    """Computes one table of published cells.

    Args:
        name: stem of its file in ``cells/``, such as ``V1``.

    Returns:
        One bar a row, with the columns `rows.COLUMNS`.
    """
    done: dict[str, float] = {}
    bars = []
    columns = rows.cells(name).columns
    for cell in cells(name):
        ours = _compute(cell, done, columns)
        if ours is not None:
            done[cell["row"]] = ours
        bars.append(_bar(name, cell, ours, _tolerance(cell), cell["sort"]))
    return rows.frame(bars)


def known_bad() -> pd.DataFrame:
    """Computes the published values that contradict their own inputs.

    Returns:
        One bar a row; ``met`` says that the contradiction is flagged, that is, that
        the deviation reaches the tolerance at which a sound value would pass.
    """
    bars = []
    for cell in cells("known_bad"):
        inputs = dict(pair.split("=") for pair in cell["inputs"].split())
        numbers = {key: float(value) for key, value in inputs.items()}
        ours = KNOWN_BAD_FORMULAS[cell["formula"]](numbers | {"unit": cell["unit"]})
        located = cell | {"locator": f"{cell['locator']}; {cell['why']}"}
        tolerance = cell["tolerance"]
        bars.append(_bar("known_bad", located, ours, tolerance, "accounting", ">="))
    return rows.frame(bars)


def cells(name: str) -> list[dict[str, Any]]:
    """Reads the cells of a table.

    Args:
        name: stem of its file in ``cells/``, such as ``V1``.

    Returns:
        One dict a cell, without its blank fields.
    """
    records = rows.cells(name).to_dict("records")
    return [
        {str(key): value for key, value in record.items() if _given(value)}
        for record in records
    ]


def _given(value: Any) -> bool:
    return value != "" and not pd.isna(value)


def _tolerance(cell: Cell) -> float | None:
    """Fraction that a cell may deviate; a margin is in the unit of the cell."""
    if "margin" in cell:
        # Half a printed unit is inclusive; the slack is for the binary fractions.
        return cell["margin"] / cell["published"] * (1 + 1e-9)
    return cell.get("tolerance")


def _compute(
    cell: Cell, done: Mapping[str, float], columns: Collection[str]
) -> float | None:
    """Our value, or None where an input of the formula is blank: it was not read."""
    quantity = cell["quantity"]
    if quantity == "sum":
        return sum(done[term] for term in cell["terms"].split())
    if quantity not in FORMULAS:
        raise ValueError(
            f"quantity of {cell['row']} is {quantity!r}; allowed: sum, "
            f"{', '.join(FORMULAS)}"
        )
    try:
        return FORMULAS[quantity](cell)
    except KeyError as missing:
        if missing.args[0] not in columns:
            raise ValueError(
                f"{quantity} of {cell['row']} needs a column {missing}, which its file "
                "lacks"
            ) from missing
        return None


def _bar(
    name: str,
    cell: Cell,
    ours: float | None,
    tolerance: float | None,
    sort: str,
    direction: str = "<=",
) -> dict[str, Any]:
    return rows.row(
        id=f"{name}.{cell['row']}",
        quantity=cell["quantity"],
        unit=cell["unit"],
        published=cell.get("published"),
        locator=f"{cell['source']}, {cell['locator']}",
        standing=cell["standing"],
        ours=ours,
        tolerance=tolerance,
        kind=cell["kind"],
        sort=sort,
        direction=direction,
    )


def _hours(cell: Cell) -> float:
    """Chip-hours; a source prints hours or days, of one chip or of many."""
    if "chip_hours" in cell:
        return cell["chip_hours"]
    hours = cell["hours"] if "hours" in cell else cell["days"] * 24
    return hours * cell.get("chips", 1)


def _parts_kwh(cell: Cell) -> float:
    parts = [cell.get(part, 0.0) for part in ("host_wh", "idle_wh", "overhead_wh")]
    return convert(cell["accelerator_wh"] + sum(parts), "Wh", "kWh")


def facility_kwh(cell: Cell) -> float:
    """Energy at the facility from whichever inputs the source prints.

    Args:
        cell: a cell without its blank fields.

    Returns:
        Energy in kWh.

    Raises:
        KeyError: an input was not read.
    """
    if "energy_kwh" in cell:
        return cell["energy_kwh"]
    if "it_kwh" in cell:
        return cell["it_kwh"] * cell["pue"]
    if "accelerator_wh" in cell:
        return _parts_kwh(cell)
    if "kwh_per_gb" in cell:
        return cell["kwh_per_gb"] * cell["gb"]
    if "idle_w" in cell:
        slope_w = cell.get("w_per_mbps", 0.0) * cell.get("mbps", 0.0)
        return energy_kwh(cell["hours"], cell["idle_w"] + slope_w, 1)
    return energy_kwh(_hours(cell), cell["power_w"], cell["pue"])


def _energy(cell: Cell) -> float:
    return convert(facility_kwh(cell), "kWh", cell["unit"])


def _carbon(cell: Cell) -> float:
    if "lb_per_kwh" in cell:
        g_per_kwh = convert(cell["lb_per_kwh"], "lb", "g")
    else:
        g_per_kwh = cell["g_per_kwh"]
    return convert(carbon_g(facility_kwh(cell), g_per_kwh), "g", cell["unit"])


def _embodied(cell: Cell) -> float:
    kg = embodied_kg(
        cell["device_kg"] * cell.get("devices", 1),
        cell["hours"],
        cell["lifetime_years"] * HOURS_PER_YEAR,
        cell.get("utilisation", 1.0),
    )
    return convert(kg, "kg", cell["unit"])


def _carbon_per_area(cell: Cell) -> float:
    # ACT takes 97 % abatement as the mean of what it tabulates for 95 % and 99 %.
    gas_g = (cell["gas95_g_per_cm2"] + cell["gas99_g_per_cm2"]) / 2
    return carbon_per_area_g(
        cell["g_per_kwh"],
        cell["energy_kwh_per_cm2"],
        gas_g,
        cell["material_g_per_cm2"],
        cell["fab_yield"],
    )


def _radio_mj(cell: Cell) -> float:
    seconds = cell["payload_bytes"] * 8 / (cell["mbps"] * 1e6)
    return seconds * (cell["mw_per_mbps"] * cell["mbps"] + cell["base_mw"])


FORMULAS: dict[str, Callable[[Cell], float]] = {
    "energy": _energy,
    "carbon": _carbon,
    "embodied": _embodied,
    "compute": lambda cell: (
        _hours(cell) * 3600 * cell["peak_flops"] * cell["utilisation"]
    ),
    "overhead": lambda cell: _energy(cell) * (cell["pue"] - 1),
    "ratio": lambda cell: (
        convert(facility_kwh(cell), "kWh", "Wh") / cell["reference_wh"]
    ),
    "water": lambda cell: water_l(facility_kwh(cell), cell["wue_l_per_kwh"]) * 1e3,
    "sci": lambda cell: sci_g(0, _embodied(cell), 1),
    "carbon per area": _carbon_per_area,
    "chip": lambda cell: _carbon_per_area(cell) * cell["area_cm2"] + cell["package_g"],
}
KNOWN_BAD_FORMULAS: dict[str, Callable[[Cell], float]] = {
    "energy": _energy,
    "carbon": _carbon,
    "radio": _radio_mj,
    "expected": lambda cell: cell["expected"],
    "parts": lambda cell: sum(cell[key] for key in cell if key != "unit"),
    "saving": lambda cell: 100 * (1 - cell["after"] / cell["before"]),
    "loop": lambda cell: cell["trips"] * cell["body_flop"],
    "days": lambda cell: (
        training_flops(cell["params"], cell["tokens"])
        / (cell["chips"] * cell["peak_flops"] * cell["utilisation"])
        / 86400
    ),
}
ACCOUNTING = (1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 20, 24)
TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    **{f"V{number}": functools.partial(table, f"V{number}") for number in ACCOUNTING},
    "known_bad": known_bad,
}
