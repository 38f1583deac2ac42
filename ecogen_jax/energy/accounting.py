"""Energy, carbon and water accounting as published tables do it, on plain floats.

    kWh  = chip-hours x watts x PUE / 1000
    g    = kWh x grid intensity in g/kWh

(Strubell et al. 2019, arXiv 1906.02243; Patterson et al. 2021, arXiv 2104.10350.)
Every argument has its unit in its name and is checked on entry; `convert` is the only
place that converts units.
"""

import math

from ecogen_jax.energy.constants import JOULES_PER_KWH

# Accepts 400 as well as 400.0, also if shapes and types are checked at run time.
Number = float | int

# Unit -> factor to the first unit of its dimension. The pound is exact by definition
# (international yard and pound agreement, 1959).
UNITS = {
    "energy": {
        "J": 1.0,
        "Wh": JOULES_PER_KWH / 1e3,
        "kWh": JOULES_PER_KWH,
        "MWh": JOULES_PER_KWH * 1e3,
    },
    "mass": {"g": 1.0, "kg": 1e3, "t": 1e6, "lb": 453.59237},
}
# Geometric mean of 1 and 1000: beyond it, the power was more likely given in kW (or
# mW).
UNIT_SLIP = 1000**0.5
# Regions of hydropower reach 2 g/kWh, plants that burn the worst coal about 1200.
INTENSITY_G_PER_KWH = (1.0, 2000.0)
PUE_REMEDY = "give facility over device energy, such as 1.1"


def convert(value: Number, source: str, target: str) -> float:
    """Converts between units of one dimension.

    Args:
        value: amount in ``source``.
        source: J, Wh, kWh, MWh, or g, kg, t, lb.
        target: another unit of the same dimension.

    Returns:
        The amount in ``target``.

    Raises:
        ValueError: a unit is unknown, or the two differ in dimension.
    """
    factors = next((table for table in UNITS.values() if source in table), None)
    if factors is None:
        known = ", ".join(unit for table in UNITS.values() for unit in table)
        raise ValueError(f"source is {source!r}; give one of {known}")
    if target not in factors:
        raise ValueError(
            f"target is {target!r}, but {source} converts only to "
            f"{', '.join(factors)}; energy becomes mass by a grid intensity"
        )
    return value * factors[source] / factors[target]


def energy_kwh(chip_hours: Number, power_w: Number, pue: Number) -> float:
    """Energy of a job: chip-hours x watts x PUE / 1000.

    Args:
        chip_hours: chips times hours, in h.
        power_w: mean power of one chip, in W; with its host if that was measured.
        pue: facility energy over device energy, at least 1.

    Returns:
        Energy at the meter of the facility, in kWh.

    Raises:
        ValueError: an argument is out of range.
    """
    check("chip_hours", chip_hours, 0, math.inf, "give hours that passed, times chips")
    check("power_w", power_w, 0, math.inf, "give the mean draw in W")
    check("pue", pue, 1, math.inf, PUE_REMEDY)
    return chip_hours * power_w / 1e3 * pue


def check_power(power_w: Number, full_power_w: Number) -> None:
    """Refuses a power that is off by a unit against the full power of its device.

    Args:
        power_w: the power to judge, in W; zero passes, as a device may be off.
        full_power_w: full power of the device, in W.

    Raises:
        ValueError: the two differ by more than `UNIT_SLIP`.
    """
    check("full_power_w", full_power_w, 1e-6, math.inf, "take it from the datasheet")
    low, high = full_power_w / UNIT_SLIP, full_power_w * UNIT_SLIP
    if power_w != 0 and not low <= power_w <= high:
        slip = "kW instead of W" if power_w < low else "mW instead of W"
        raise ValueError(
            f"power_w is {power_w:g} for a device of {full_power_w:g} W; allowed: "
            f"{low:g} to {high:g}, or 0; was it given in {slip}?"
        )


def carbon_g(energy_kwh: Number, intensity_g_per_kwh: Number) -> float:
    """Carbon of electricity, location-based or net of contracts.

    Args:
        energy_kwh: energy at the meter, in kWh.
        intensity_g_per_kwh: intensity of the grid (location-based) or of the supply
            (market-based, net), in g CO2 equivalent per kWh.

    Returns:
        Grams of CO2 equivalent.

    Raises:
        ValueError: an argument is out of range, as an intensity in kg/kWh is.
    """
    check("energy_kwh", energy_kwh, 0, math.inf, "give the energy used, in kWh")
    if intensity_g_per_kwh != 0:
        low, high = INTENSITY_G_PER_KWH
        remedy = "give g/kWh (kg/kWh times 1000), or 0 for a supply without carbon"
        check("intensity_g_per_kwh", intensity_g_per_kwh, low, high, remedy)
    return float(energy_kwh * intensity_g_per_kwh)


def market_g(location_g: Number, contracted_share: Number) -> float:
    """Market-based carbon: what remains beside contracted carbon-free energy.

    Args:
        location_g: location-based carbon, in g.
        contracted_share: fraction of the energy under carbon-free contracts.

    Returns:
        Grams of CO2 equivalent.

    Raises:
        ValueError: an argument is out of range.
    """
    check("location_g", location_g, 0, math.inf, "give location-based grams")
    check("contracted_share", contracted_share, 0, 1, "give a fraction, not per cent")
    return float(location_g * (1 - contracted_share))


def embodied_kg(
    total_kg: Number, hours: Number, lifetime_h: Number, utilisation: Number
) -> float:
    """Share of the manufacturing carbon that a use of the hardware carries.

    Over its life a device is in use for lifetime x utilisation hours, and each of them
    carries the same part (Luccioni et al. 2022, arXiv 2211.02001).

    Args:
        total_kg: embodied carbon of one device, in kg CO2 equivalent.
        hours: hours of use, in h; of several devices, their sum.
        lifetime_h: service life, in h.
        utilisation: fraction of the life in use, above 0.

    Returns:
        Embodied carbon of this use, in kg CO2 equivalent.

    Raises:
        ValueError: an argument is out of range.
    """
    check("total_kg", total_kg, 0, math.inf, "give kg of one device")
    check("hours", hours, 0, math.inf, "give hours that passed")
    check("lifetime_h", lifetime_h, 1, math.inf, "give hours: years times 8760")
    check("utilisation", utilisation, 1e-6, 1, "give a fraction, not per cent")
    return total_kg * hours / (lifetime_h * utilisation)


def carbon_per_area_g(
    intensity_g_per_kwh: Number,
    energy_kwh_per_cm2: Number,
    gas_g_per_cm2: Number,
    material_g_per_cm2: Number,
    fab_yield: Number,
) -> float:
    """Carbon of a good square centimetre of logic.

    CPA = (CI x EPA + GPA + MPA) / Y, Gupta et al. 2022, ACT, ISCA.

    Args:
        intensity_g_per_kwh: grid intensity of the fab, in g/kWh.
        energy_kwh_per_cm2: fab energy per area (EPA), in kWh/cm2.
        gas_g_per_cm2: process gases per area (GPA), in g CO2 equivalent per cm2.
        material_g_per_cm2: raw materials per area (MPA), in g CO2 equivalent per cm2.
        fab_yield: fraction of good dies, above 0.

    Returns:
        Grams of CO2 equivalent per cm2.

    Raises:
        ValueError: an argument is out of range.
    """
    remedy = "give the fab energy in kWh/cm2"
    check("energy_kwh_per_cm2", energy_kwh_per_cm2, 0, math.inf, remedy)
    check("gas_g_per_cm2", gas_g_per_cm2, 0, math.inf, "give g/cm2")
    check("material_g_per_cm2", material_g_per_cm2, 0, math.inf, "give g/cm2")
    check("fab_yield", fab_yield, 1e-6, 1, "give a fraction, not per cent")
    electricity_g = carbon_g(energy_kwh_per_cm2, intensity_g_per_kwh)
    return (electricity_g + gas_g_per_cm2 + material_g_per_cm2) / fab_yield


def sci_g(operational_g: Number, embodied_g: Number, functional_units: Number) -> float:
    """Software carbon intensity: SCI = (O + M) / R, ISO/IEC 21031:2024.

    Args:
        operational_g: location-based carbon of the energy, idle included, in g.
        embodied_g: share of the embodied carbon, in g.
        functional_units: number of served units, such as inferences; above 0.

    Returns:
        Grams of CO2 equivalent per functional unit.

    Raises:
        ValueError: an argument is out of range.
    """
    check("operational_g", operational_g, 0, math.inf, "offsets do not count in SCI")
    check("embodied_g", embodied_g, 0, math.inf, "give grams")
    remedy = "count what was served; nothing served has no SCI"
    check("functional_units", functional_units, 1e-12, math.inf, remedy)
    return (operational_g + embodied_g) / functional_units


def water_l(device_energy_kwh: Number, wue_l_per_kwh: Number) -> float:
    """Water that a site evaporates for its devices.

    Args:
        device_energy_kwh: energy of the devices, without PUE overhead, in kWh.
        wue_l_per_kwh: water usage effectiveness (ISO/IEC 30134-9), in L/kWh.

    Returns:
        Litres.

    Raises:
        ValueError: an argument is negative.
    """
    check("device_energy_kwh", device_energy_kwh, 0, math.inf, "give kWh of devices")
    check("wue_l_per_kwh", wue_l_per_kwh, 0, math.inf, "give litres per kWh")
    return float(device_energy_kwh * wue_l_per_kwh)


def check(field: str, value: Number, low: Number, high: Number, remedy: str) -> None:
    """Refuses a number outside its range, and anything that is not a finite number.

    Args:
        field: name of the argument.
        value: the number.
        low: smallest allowed value.
        high: largest allowed value; infinity for any finite one.
        remedy: what to give instead.

    Raises:
        ValueError: the value is out of range; the text names field, range and remedy.
    """
    if not (math.isfinite(value) and low <= value <= high):
        allowed = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
        raise ValueError(f"{field} is {value:g}; allowed: {allowed}; {remedy}")
