"""Whether a measured number lies inside the 90 % interval that we would have given.

Intervals come from bounds of inputs with a source (power, grid, idle, memory) and, for
decoding, from the errors of the fit on models that it leaves out of its own split. No
row that is scored has a part in its interval but StarCoder's: its power is the lower
bound of our A100, and it is counted where it lies, outside.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ecogen_jax.energy import accounting, constants, devices
from papers_repro.energy import accounting as printed
from papers_repro.energy import fits

TAILS = (0.05, 0.95)
DRAWS = 2000


class Check(NamedTuple):
    """One measured number and our 90 % interval, in the unit of its row."""

    row: str
    measured: float
    low: float
    high: float

    @property
    def inside(self) -> bool:
        """Whether the interval covers the number."""
        return bool(self.low <= self.measured <= self.high)


def training_power(table: str, cells: Sequence[fits.Cell]) -> Iterator[Check]:
    """Energy of training runs from the power of the type of chip, not of the run.

    Of a Google chip the mean and the spread over systems are known: their 90 % range
    is the interval. An A100 has the bounds of the device table.

    Args:
        table: ``V2`` or ``V8``, to name the rows.
        cells: its cells.

    Yields:
        One check for each row whose energy was published.
    """
    for cell in cells:
        if cell["unit"] not in ("kWh", "MWh") or not cell["published"] > 0:
            continue
        chip = _chip(cell["row"])
        if chip == "a100":
            watts = devices.device("a100").power_w
            bounds = _tails(_draws(watts.low, watts.value, watts.high))
        else:
            name = f"{chip}_power_w"
            bounds = (fits.number(name, "low"), fits.number(name, "high"))
        low, high = (_energy(cell, power_w) for power_w in bounds)
        yield Check(f"{table}.{cell['row']}", cell["published"], low, high)


def intensity(cells: Sequence[fits.Cell]) -> Iterator[Check]:
    """Carbon from measured energy and the intensity of the grid.

    The intensity of a site takes the relative interval of our grid table.

    Args:
        cells: cells of V12, without their blank fields.

    Yields:
        One check for each row of one site whose carbon was published.
    """
    grid = constants.grid("United States")
    for cell in cells:
        if not {"g_per_kwh", "published"} <= cell.keys():
            continue
        scale = cell["g_per_kwh"] / grid.value
        draws = scale * _draws(grid.low, grid.value, grid.high)
        low, high = _tails(draws * printed.facility_kwh(cell) / 1e6)
        yield Check(f"V12.{cell['row']}", cell["published"], low, high)


def decoding() -> Iterator[Check]:
    """Decoding energy, from the errors on models that a fit leaves out of the split.

    Each model of the split is predicted by constants fitted on the others; the 5 %
    and 95 % quantiles of measured over predicted widen the prediction of a new row
    (cross-validated residuals, Barber et al. 2021, arXiv 1905.02928).

    Yields:
        One check for each row of V14.
    """
    split = fits.cells("V14_fit")
    ratios = []
    for left_out in sorted({(cell["model"], cell["device"]) for cell in split}):
        held = [c for c in split if (c["model"], c["device"]) == left_out]
        rest = [c for c in split if (c["model"], c["device"]) != left_out]
        others = fits.efficiency(rest)
        ratios += [c["j_per_token"] / fits.decode_j(c, others) for c in held]
    low, high = _tails(np.array(ratios))
    for cell in fits.cells("V14"):
        ours = fits.decode_j(cell, fits.fitted_efficiency())
        row = f"V14.{cell['row']}"
        yield Check(row, cell["published"], low * ours, high * ours)


def capping() -> Iterator[Check]:
    """Effect of a power cap, from any share of the time and bounded static power.

    Yields:
        One check for each row of V18.
    """
    idle_w = _draws(*_bounds("a100_idle_w"), seed=1)
    j_per_byte = _draws(*_bounds("memory_j_per_byte"), seed=2)
    static_w = idle_w + j_per_byte * fits.traffic_bytes_per_s()
    shares = np.random.default_rng(3).uniform(0, 1, DRAWS)
    for cell in fits.cells("V18"):
        draws = zip(shares, static_w, strict=True)
        ratios = np.array([fits.cap_ratio(cell, *pair) for pair in draws])
        low, high = _tails(ratios)
        yield Check(f"V18.{cell['row']}", cell["published"], low, high)


def _bounds(name: str) -> tuple[float, float, float]:
    low, value, high = (fits.number(name, bound) for bound in ("low", "value", "high"))
    return low, value, high


def _draws(low: float, value: float, high: float, seed: int = 0) -> np.ndarray:
    """Triangular between the bounds of an input, with the mode at its value."""
    return np.random.default_rng(seed).triangular(low, value, high, DRAWS)


def _tails(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(draws, TAILS)
    return float(low), float(high)


def _chip(row: str) -> str:
    """Type of chip, from the name of the row or of the run."""
    runs = {"lamda": "tpuv3", "gopher": "tpuv3", "starcoder": "a100"}
    named = [chip for chip in ("p100", "tpuv2") if chip in row]
    return named[0] if named else runs[row.split(".")[0]]


def _energy(cell: fits.Cell, power_w: float) -> float:
    """Energy of a run at some power, in the unit of its row."""
    hours = cell["days"] * 24 if cell.get("days", 0) > 0 else cell["hours"]
    kwh = accounting.energy_kwh(cell["chips"] * hours, power_w, cell["pue"])
    return accounting.convert(kwh, "kWh", cell["unit"])
