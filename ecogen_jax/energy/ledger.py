"""The ledger: what every phase of a run cost, by tier and link, in joules and grams.

Computation on a tier (modelled):

    seconds = FLOPs / achieved FLOP/s of the device
    joules  = seconds x power of the device x PUE of the tier
    grams   = joules / 3.6e6 x grid intensity in g/kWh            (location-based)
    grams   = location-based x (1 - contracted carbon-free share)   (market-based)

as Patterson et al. 2021 (arXiv 2104.10350) account for training: hours x chips x
measured power x PUE x intensity. A transfer on a link (modelled):

    seconds = crossings x latency + bytes / rate
    joules  = bytes x joules per byte, in the average or the marginal view

Joules have three parts, named as in Luccioni et al. 2022 (arXiv 2211.02001): dynamic
(all power while computing, or carrying), idle (power while waiting for another tier,
if the run includes it) and overhead, (PUE - 1) times both. Besides the operational
carbon there is a share of the embodied carbon of the device,

    grams = embodied kg x 1000 x seconds in use / lifetime in seconds

(ISO/IEC 21031:2024, the M of SCI) and, if configured, the water that evaporates on the
cloud's site: litres = kWh of IT energy x WUE.

Links have no contracts. The interval of each product comes from the corners of the
intervals of its factors. Left out: storage, and the embodied carbon of networks. The
seconds of the simulating machine are reported but enter no total.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, SupportsFloat

import pandas as pd

from ecogen_jax.energy import accounting, constants
from ecogen_jax.energy.rates import LINKS, TIERS, Rates, check_place

KIND = "modelled"

_SUMS = (
    "host_s",
    "device_s",
    "energy_j",
    "energy_low_j",
    "energy_high_j",
    "dynamic_j",
    "idle_j",
    "overhead_j",
    "carbon_location_g",
    "carbon_market_g",
    "embodied_g",
    "water_l",
)


class Interval(NamedTuple):
    """A number between its bounds, in any unit."""

    value: float
    low: float
    high: float


class Entry(NamedTuple):
    """One line of the ledger: plain numbers, so that it fits a checkpoint's JSON.

    Attributes:
        cycle: number of the cycle.
        phase: ``pretrain``, ``down``, ``local``, ``up``, ...
        stage: finer name, such as ``down/cloud_edge``.
        place: tier that computed or link that carried.
        flops: operations; 0 on a link.
        up_bytes: bytes towards the cloud; 0 on a tier.
        down_bytes: bytes away from the cloud; 0 on a tier.
        host_s: wall seconds of the simulating machine; enters no total.
        device_s: modelled busy seconds of the simulated device or link, the parties
            of the tier one after the other; of a link with one latency a crossing.
        energy_j: joules, with PUE; and the ends of the interval.
        energy_low_j: see ``energy_j``.
        energy_high_j: see ``energy_j``.
        dynamic_j: the part of ``energy_j`` drawn while computing or carrying.
        idle_j: the part drawn while waiting.
        overhead_j: the part for cooling and power supply of the building.
        carbon_location_g: gCO2e by the grid's mean; and the ends of the interval.
        carbon_location_low_g: see ``carbon_location_g``.
        carbon_location_high_g: see ``carbon_location_g``.
        carbon_market_g: gCO2e after contracts for carbon-free energy.
        embodied_g: embodied gCO2e of the device, its share for the seconds in use; None
            if no source gives it, 0 on a link.
        water_l: litres that evaporated on the cloud's site.
        kind: ``measured``, ``modelled`` or ``assumed``.
        waits_for: the tier that is waited for; "" if no party waits, or if an older
            checkpoint does not say.
    """

    cycle: int
    phase: str
    stage: str
    place: str
    flops: float
    up_bytes: int
    down_bytes: int
    host_s: float
    device_s: float
    energy_j: float
    energy_low_j: float
    energy_high_j: float
    dynamic_j: float
    idle_j: float
    overhead_j: float
    carbon_location_g: float
    carbon_location_low_g: float
    carbon_location_high_g: float
    carbon_market_g: float
    embodied_g: float | None
    water_l: float
    kind: str
    waits_for: str = ""


def compute_entry(
    rates: Rates,
    *,
    cycle: int,
    phase: str,
    stage: str,
    tier: str,
    flops: SupportsFloat,
    host_s: SupportsFloat,
) -> Entry:
    """Accounts for computation on one tier, all its parties together.

    Args:
        rates: from `rates`.
        cycle: number of the cycle.
        phase: phase of the cycle.
        stage: finer name of the phase.
        tier: ``cloud``, ``edge`` or ``end``.
        flops: operations of all parties of the tier.
        host_s: wall seconds on the simulating machine, reported only.

    Returns:
        A modelled entry.

    Raises:
        ValueError: the tier is unknown, or a number is negative or not finite.
    """
    check_place("tier", tier, TIERS)
    operations = _amount("flops", flops)
    device = rates.devices[tier]
    seconds_per_flop = _inverse(device.achieved_flops)
    seconds = operations * seconds_per_flop.value
    return _tier_entry(
        rates,
        tier,
        "dynamic_j",
        _interval(operations, seconds_per_flop, device.power_w),
        seconds,
        cycle=cycle,
        phase=phase,
        stage=stage,
        flops=operations,
        host_s=_amount("host_s", host_s),
        device_s=seconds,
    )


def idle_entry(
    rates: Rates,
    *,
    cycle: int,
    phase: str,
    stage: str,
    tier: str,
    wait_s: SupportsFloat,
    waits_for: str,
) -> Entry:
    """Accounts for the parties of one tier that wait for another.

    Slower devices are waited for longer: the interval also has the corners of that
    speed.

    Args:
        rates: from `rates.rates`, with ``include_idle``.
        cycle: number of the cycle.
        phase: phase of the cycle.
        stage: finer name of the phase.
        tier: ``cloud``, ``edge`` or ``end``.
        wait_s: seconds of waiting, all parties of the tier together.
        waits_for: the tier that computes meanwhile.

    Returns:
        A modelled entry.

    Raises:
        ValueError: a tier is unknown, waiting is not part of the rates, or the
            seconds are negative or not finite.
    """
    check_place("tier", tier, TIERS)
    check_place("waits_for", waits_for, TIERS)
    if tier not in rates.idle_power:
        raise ValueError(
            f"rates have no idle_power of {tier}: make them with include_idle=True"
        )
    seconds, speed = _amount("wait_s", wait_s), rates.devices[waits_for].achieved_flops
    slowness = _interval(speed.value, _inverse(speed))
    return _tier_entry(
        rates,
        tier,
        "idle_j",
        _interval(seconds, slowness, rates.idle_power[tier]),
        seconds,
        cycle=cycle,
        phase=phase,
        stage=stage,
        waits_for=waits_for,
    )


def transfer_entry(
    rates: Rates,
    *,
    cycle: int,
    phase: str,
    stage: str,
    link: str,
    up_bytes: SupportsFloat,
    down_bytes: SupportsFloat,
    crossings: int,
) -> Entry:
    """Accounts for the messages that one link carried.

    Args:
        rates: from `rates`.
        cycle: number of the cycle.
        phase: phase of the cycle.
        stage: finer name of the phase.
        link: ``cloud_edge`` or ``edge_end``.
        up_bytes: bytes towards the cloud, all parties together.
        down_bytes: bytes away from the cloud, all parties together.
        crossings: number of sequential transfers.

    Returns:
        A modelled entry.

    Raises:
        ValueError: the link is unknown, or a number is negative or not finite.
    """
    check_place("link", link, LINKS)
    up, down = _amount("up_bytes", up_bytes), _amount("down_bytes", down_bytes)
    profile = rates.links[link]
    seconds = (up + down) / profile.rate_bytes_per_s.value
    energy = _interval(up + down, rates.link_energy[link])
    return _entry(
        rates,
        energy=energy,
        dynamic_j=energy.value,
        contracted_share=0.0,
        cycle=cycle,
        phase=phase,
        stage=stage,
        place=link,
        up_bytes=int(up),
        down_bytes=int(down),
        device_s=crossings * profile.latency_s.value + seconds,
    )


def summarise(entries: Iterable[Entry]) -> dict[str, Any]:
    """Adds entries up by tier and link: the ``ledger`` block of ``summary.json``.

    Args:
        entries: any entries, in any order.

    Returns:
        ``{tier: sums, ..., "link": {link: sums, ...}}`` for every tier and link,
        zeros where nothing happened. Sums of a tier have ``flops``, sums of a link
        ``up_bytes`` and ``down_bytes``; both have seconds, joules with interval,
        grams and ``kind``.
    """
    entries = list(entries)
    links = {
        name: _sums(entries, name, ("up_bytes", "down_bytes", *_SUMS)) for name in LINKS
    }
    tiers = {tier: _sums(entries, tier, ("flops", *_SUMS)) for tier in TIERS}
    return {**tiers, "link": links}


def to_frame(entries: Iterable[Entry]) -> pd.DataFrame:
    """One row an entry, the columns named as its fields."""
    return pd.DataFrame(list(entries), columns=list(Entry._fields))


def to_json(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Entries as dictionaries of plain numbers and strings."""
    return [entry._asdict() for entry in entries]


def from_json(rows: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """Entries of what `to_json` gave."""
    return [Entry(**row) for row in rows]


def _tier_entry(
    rates: Rates,
    tier: str,
    part: str,
    it_energy: Interval,
    used_s: float,
    **counts: Any,
) -> Entry:
    """Adds overhead, embodied carbon and water."""
    pue, wue = rates.pue[tier], rates.wue.get(tier)
    it_kwh = it_energy.value / constants.JOULES_PER_KWH
    return _entry(
        rates,
        energy=_interval(1.0, it_energy, pue),
        overhead_j=it_energy.value * (pue.value - 1),
        embodied_g=_embodied_g(rates, tier, used_s),
        water_l=it_kwh * wue.value if wue else 0.0,
        contracted_share=rates.contracted_share[tier],
        place=tier,
        **{part: it_energy.value},
        **counts,
    )


_BLANK: dict[str, Any] = {"up_bytes": 0, "down_bytes": 0} | dict.fromkeys(
    ("flops", "host_s", "device_s", "dynamic_j", "idle_j", "overhead_j"), 0.0
)
_BLANK |= {"embodied_g": 0.0, "water_l": 0.0}


def _embodied_g(rates: Rates, tier: str, used_s: float) -> float | None:
    embodied = rates.devices[tier].embodied
    if embodied is None:
        return None
    return embodied.value * 1000 * used_s / rates.lifetime[tier].value


def _entry(
    rates: Rates, *, energy: Interval, contracted_share: float, **values: Any
) -> Entry:
    """Adds joules and grams to the counts; everything not given is 0."""
    carbon = _interval(1 / constants.JOULES_PER_KWH, energy, rates.intensity)
    return Entry(
        **_BLANK | values,
        energy_j=energy.value,
        energy_low_j=energy.low,
        energy_high_j=energy.high,
        carbon_location_g=carbon.value,
        carbon_location_low_g=carbon.low,
        carbon_location_high_g=carbon.high,
        carbon_market_g=accounting.market_g(carbon.value, contracted_share),
        kind=KIND,
    )


def _interval(amount: float, *factors: constants.Constant | Interval) -> Interval:
    """Product with the corners of its interval; every factor is positive."""
    return Interval(
        amount * math.prod(factor.value for factor in factors),
        amount * math.prod(factor.low for factor in factors),
        amount * math.prod(factor.high for factor in factors),
    )


def _inverse(constant: constants.Constant) -> Interval:
    return Interval(1 / constant.value, 1 / constant.high, 1 / constant.low)


def _sums(
    entries: Sequence[Entry], place: str, fields: Sequence[str]
) -> dict[str, Any]:
    here = [entry for entry in entries if entry.place == place]
    sums = {field: _sum(getattr(entry, field) for entry in here) for field in fields}
    # Kinds are never mixed without a label; an empty sum has the ledger's kind.
    kinds = sorted({entry.kind for entry in here}) or [KIND]
    return {**sums, "kind": "+".join(kinds)}


def _sum(values: Iterable[float | int | None]) -> float | int | None:
    """Sum; None where a part of it is unknown."""
    total: float | int = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _amount(name: str, value: SupportsFloat) -> float:
    """Plain float of a count, also of a NumPy or JAX scalar."""
    number = float(value)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name} is {value}: allowed are finite numbers from 0 up")
    return number
