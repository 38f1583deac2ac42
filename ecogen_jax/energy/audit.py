"""Does a table of hours, watts, PUE and intensity agree with its own energy and carbon?

The recomputation of the published tables (`papers_repro/energy`) for any table: a claim
that does not follow from its own inputs is a finding, with the error that would explain
it.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

from ecogen_jax.energy import constants, devices
from ecogen_jax.energy.accounting import (
    PUE_REMEDY,
    carbon_g,
    check,
    check_power,
    convert,
    energy_kwh,
)

NUMBERS = (
    "chip_hours",
    "power_w",
    "full_power_w",
    "pue",
    "intensity_g_per_kwh",
    "energy_kwh",
    "carbon_kg",
)
WORDS = ("name", "device", "region")
# Two per cent: the deviation of published tables from rounding their inputs.
TOLERANCE = 0.02


class Finding(NamedTuple):
    """One contradiction.

    Attributes:
        name: the row's name, or its number from 1.
        field: the column at fault, or "inputs" where an input was refused.
        printed: what the table says; None where an input was refused.
        expected: what its inputs give; None where an input was refused.
        reason: what is wrong, and the error that would explain it.
    """

    name: str
    field: str
    printed: float | None
    expected: float | None
    reason: str


def audit(table: pd.DataFrame, tolerance: float = TOLERANCE) -> list[Finding]:
    """Recomputes the claims of a table from its inputs.

    A blank cell is not judged. ``device`` and ``region`` name rows of the packaged
    tables and stand for ``full_power_w`` and ``intensity_g_per_kwh``.

    Args:
        table: one job a row; the columns are some of `NUMBERS` and `WORDS`.
        tolerance: deviation of a claim that may be due to rounding.

    Returns:
        The findings, in the order of the rows.

    Raises:
        ValueError: a column is unknown or holds text instead of numbers, or there are
            no rows.
    """
    allowed = [*WORDS, *NUMBERS]
    unknown = [column for column in table.columns if column not in allowed]
    if unknown:
        raise ValueError(
            f"unknown columns {unknown}; allowed: {', '.join(allowed)}; rename or drop"
        )
    numbers = table.columns.intersection(list(NUMBERS))
    if table.empty:
        raise ValueError("the table has no rows; give one job a row")
    for column in numbers:
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise ValueError(f"column {column} holds text; give numbers or blanks")
    found: list[Finding] = []
    records = table.astype(dict.fromkeys(numbers, float)).to_dict("records")
    for number, record in enumerate(records, start=1):
        row = {str(key): value for key, value in record.items() if not pd.isna(value)}
        row.setdefault("name", f"row {number}")
        found += _judge(row, tolerance)
    return found


def _judge(row: dict[str, Any], tolerance: float) -> Iterator[Finding]:
    """Findings of one row: its inputs first, then each claim."""
    name = str(row["name"])
    try:
        _look_up(row)
        energy = _energy_kwh(row)
        claimed = row.get("energy_kwh", energy)
        carbon = _carbon_kg(row, claimed)
    except ValueError as error:
        yield Finding(name, "inputs", None, None, str(error))
        return
    for field, expected in (("energy_kwh", energy), ("carbon_kg", carbon)):
        printed = row.get(field)
        if printed is None or expected is None:
            continue
        if abs(printed - expected) > tolerance * abs(expected):
            reason = _reason(printed, expected, row.get("pue", 1.0))
            yield Finding(name, field, printed, expected, reason)


def _look_up(row: dict[str, Any]) -> None:
    """Puts the numbers of a named device and region in place of their names."""
    if "device" in row and "full_power_w" not in row:
        full = devices.device_cell(str(row["device"]), "full_power")
        row["full_power_w"] = full.value
    if "region" in row and "intensity_g_per_kwh" not in row:
        row["intensity_g_per_kwh"] = constants.grid(str(row["region"])).value


def _energy_kwh(row: Mapping[str, Any]) -> float | None:
    if {"power_w", "full_power_w"} <= row.keys():
        check_power(row["power_w"], row["full_power_w"])
    if "pue" in row:
        check("pue", row["pue"], 1, math.inf, PUE_REMEDY)
    if not {"chip_hours", "power_w", "pue"} <= row.keys():
        return None
    return energy_kwh(row["chip_hours"], row["power_w"], row["pue"])


def _carbon_kg(row: Mapping[str, Any], energy: float | None) -> float | None:
    if energy is None or "intensity_g_per_kwh" not in row:
        return None
    return convert(carbon_g(energy, row["intensity_g_per_kwh"]), "g", "kg")


def _reason(printed: float, expected: float, pue: float) -> str:
    """Says how far off a claim is, and which error gives exactly this factor."""
    if expected == 0:
        return "the inputs give zero"
    ratio = printed / expected
    slips = {
        1e3: "a unit of 1000 too small was taken, such as g for kg or W for kW",
        1e-3: "a unit of 1000 too large was taken, such as t for kg or MWh for kWh",
        1 / 0.45359237: "the number is in pounds",
    }
    if pue > 1:
        slips |= {1 / pue: "PUE was left out", pue: "PUE was counted twice"}
    near = [text for factor, text in slips.items() if abs(ratio / factor - 1) < 0.005]
    cause = f"; {near[0]}" if near else ""
    return f"{ratio:.4g} times what its inputs give{cause}"
