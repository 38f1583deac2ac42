"""Every physical number of the ledger, with its interval, source, date and kind.

The numbers live in ``tables/*.csv``, one a row, in the unit of their source; this
module converts them to SI, and `devices` puts devices and links together from them.
There are three kinds: ``measured`` (read from a meter), ``modelled`` (computed) and
``assumed`` (a choice, with the reason in the source column). ``low`` and ``high`` bound
the plausible values.
"""

import difflib
import functools
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

import pandas as pd

JOULES_PER_KWH = 3.6e6

# Unit of a source -> factor and unit in SI.
_SI = {
    **{unit: (1.0, unit) for unit in ("1", "W", "kg", "g/kWh", "L/kWh")},
    "TFLOP/s": (1e12, "FLOP/s"),
    "GFLOP/s": (1e9, "FLOP/s"),
    "Mbit/s": (1e6 / 8, "B/s"),
    "GB/s": (1e9, "B/s"),
    "TB/s": (1e12, "B/s"),
    "ms": (1e-3, "s"),
    "year": (365.25 * 86400, "s"),
    "kWh/GB": (JOULES_PER_KWH / 1e9, "J/B"),
    # A watt at one Mbit/s is a joule for each Mbit.
    "W/Mbit/s": (8 / 1e6, "J/B"),
}


class Constant(NamedTuple):
    """One number and where it comes from.

    Attributes:
        value: best value, in ``unit``.
        low: lower bound of the interval, in ``unit``.
        high: upper bound of the interval, in ``unit``.
        unit: SI unit, except g/kWh for carbon intensity.
        source: publication with table or section, and the reason for the interval.
        date: year, or year and month, that the source describes.
        kind: ``measured``, ``modelled`` or ``assumed``.
    """

    value: float
    low: float
    high: float
    unit: str
    source: str
    date: str
    kind: str


@functools.cache
def table(stem: str) -> pd.DataFrame:
    """Reads one packaged table.

    Args:
        stem: ``devices``, ``links``, ``grid``, ``pue``, ``lifetime`` or ``wue``.

    Returns:
        A frame with the columns name, quantity and those of `Constant`, in the
        units of the sources.

    Raises:
        ValueError: a row has too many cells.
    """
    path = resources.files(__package__).joinpath("tables", f"{stem}.csv")
    try:
        with path.open(encoding="utf-8") as file:
            return pd.read_csv(file, dtype={"date": str, "unit": str})
    except pd.errors.ParserError as error:
        raise ValueError(
            f"{path} cannot be read ({str(error).strip()}); put a cell that holds a "
            "comma into double quotes"
        ) from error


def names(stem: str, having: Sequence[str] = ()) -> tuple[str, ...]:
    """Names that a table knows, in its order.

    Args:
        stem: as for `table`.
        having: quantities that a name must have all of, such as `devices.TRAINING`.

    Returns:
        The names without repeats.
    """
    known = table(stem)[["name", "quantity"]]
    found = dict(tuple(known.groupby("name", sort=False)["quantity"]))
    return tuple(
        str(name) for name, quantities in found.items() if {*having} <= {*quantities}
    )


def grid(name: str) -> Constant:
    """Looks up the location-based carbon intensity of a country or region.

    The interval is plus-minus 20 %, or 50 % for grids below 100 g/kWh, widened to the
    values of other published data sets for the same country: for a clean grid, the
    choice of data set alone changes the value by half.

    Args:
        name: one of ``names("grid")``.

    Returns:
        Grams of CO2 equivalent per kWh, yearly mean.

    Raises:
        ValueError: the name is unknown.
    """
    return lookup("grid", name)["carbon_intensity"]


def pue(tier: str) -> Constant:
    """Looks up the power usage effectiveness: facility energy over device energy.

    Args:
        tier: ``cloud``, ``edge`` or ``end``.

    Returns:
        The factor, without unit.

    Raises:
        ValueError: the tier is unknown.
    """
    return lookup("pue", tier)["pue"]


def lifetime(tier: str) -> Constant:
    """Looks up how long the devices of a tier are in use.

    Args:
        tier: ``cloud``, ``edge`` or ``end``.

    Returns:
        The lifetime, in s.

    Raises:
        ValueError: the tier is unknown.
    """
    return lookup("lifetime", tier)["lifetime"]


def wue(site: str) -> Constant:
    """Looks up the water usage effectiveness of an operator's data centres.

    Args:
        site: one of ``names("wue")``.

    Returns:
        Litres that evaporate on site for a kWh of IT energy.

    Raises:
        ValueError: the name is unknown.
    """
    return lookup("wue", site)["wue"]


@functools.cache
def lookup(stem: str, name: str) -> dict[str, Constant]:
    """Looks up all that a table knows of a name.

    Args:
        stem: as for `table`.
        name: one of ``names(stem)``.

    Returns:
        Constants by quantity, in SI units.

    Raises:
        ValueError: the name is unknown, or one of its units.
    """
    frame = table(stem)
    found = frame[frame["name"] == name]
    if found.empty:
        raise ValueError(_unknown(stem, name))
    records = found.set_index("quantity").drop(columns="name").to_dict("index")
    return {
        str(quantity): _to_si(
            Constant(**{str(key): row[key] for key in row}),
            f"{quantity} of {name!r} in table {stem}",
        )
        for quantity, row in records.items()
    }


def _unknown(stem: str, name: str) -> str:
    """Error text with the nearest name and all that are allowed."""
    known = names(stem)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown name {name!r} in table {stem}: {hint}known: {', '.join(known)}"


def _to_si(constant: Constant, where: str) -> Constant:
    if constant.unit not in _SI:
        raise ValueError(
            f"the unit {constant.unit!r} of {where} is unknown; give the number in one "
            f"of {', '.join(_SI)}"
        )
    factor, unit = _SI[constant.unit]
    return constant._replace(
        value=constant.value * factor,
        low=constant.low * factor,
        high=constant.high * factor,
        unit=unit,
    )
