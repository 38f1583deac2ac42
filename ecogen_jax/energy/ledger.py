"""The ledger: what every phase of a run cost, by tier and link, in joules and grams.

Computation on a tier (modelled):

    seconds = FLOPs / achieved FLOP/s of the device
    joules  = seconds x power of the device x PUE of the tier
    grams   = joules / 3.6e6 x grid intensity in g/kWh            (location-based)
    grams   = location-based x (1 - contracted carbon-free share)   (market-based)

as Patterson et al. 2021 (arXiv 2104.10350) account for training: hours x chips x
measured power x PUE x intensity. A transfer on a link (modelled, average view):

    seconds = sum over the directions used of latency + bytes / rate
    joules  = bytes x joules per byte

Links count as uncontracted. The interval of each product comes from the corners of
the intervals of its factors. Left out: idle power, embodied carbon, water, storage.
The seconds of the machine that simulates the network are reported and never enter.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, SupportsFloat

import pandas as pd

from ecogen_jax.energy import constants

TIERS = ("cloud", "edge", "end")
LINKS = ("cloud_edge", "edge_end")
KIND = "modelled"

_SUMS = (
    "host_s",
    "device_s",
    "energy_j",
    "energy_low_j",
    "energy_high_j",
    "carbon_location_g",
    "carbon_market_g",
)


class Interval(NamedTuple):
    """A number between its bounds, in any unit."""

    value: float
    low: float
    high: float


class Rates(NamedTuple):
    """All that turns FLOPs and bytes into joules and grams.

    Attributes:
        devices: device of each tier.
        links: profile of each link.
        pue: power usage effectiveness of each tier.
        intensity: location-based grid intensity, g/kWh.
        contracted_share: share of carbon-free energy that each tier has contracted,
            0 to 1: an assumption of the config.
    """

    devices: dict[str, constants.Device]
    links: dict[str, constants.Link]
    pue: dict[str, constants.Constant]
    intensity: constants.Constant
    contracted_share: dict[str, float]


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
        host_s: wall seconds of the simulating machine; enters nothing.
        device_s: modelled busy seconds of the simulated device or link, the parties
            of the tier one after the other.
        energy_j: joules, with PUE; and the ends of the interval.
        energy_low_j: see ``energy_j``.
        energy_high_j: see ``energy_j``.
        carbon_location_g: gCO2e by the grid's mean; and the ends of the interval.
        carbon_location_low_g: see ``carbon_location_g``.
        carbon_location_high_g: see ``carbon_location_g``.
        carbon_market_g: gCO2e after contracts for carbon-free energy.
        kind: ``measured``, ``modelled`` or ``assumed``.
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
    carbon_location_g: float
    carbon_location_low_g: float
    carbon_location_high_g: float
    carbon_market_g: float
    kind: str


def rates(
    *,
    devices: Mapping[str, str],
    links: Mapping[str, str],
    country: str,
    contracted_share: Mapping[str, float],
) -> Rates:
    """Looks up every constant of a run, once.

    Args:
        devices: tier -> name in ``constants.names("devices")``.
        links: link -> name in ``constants.names("links")``.
        country: name in ``constants.names("grid")``.
        contracted_share: tier -> share of contracted carbon-free energy, 0 to 1.

    Returns:
        The rates of all tiers and links.

    Raises:
        ValueError: a name is unknown, a tier or link is missing, or a share is not
            between 0 and 1.
    """
    _check_keys("devices", devices, TIERS)
    _check_keys("links", links, LINKS)
    _check_keys("contracted_share", contracted_share, TIERS)
    for tier, share in contracted_share.items():
        if not 0 <= share <= 1:
            raise ValueError(
                f"contracted_share of {tier} is {share}: allowed is 0 (none) to 1 (all)"
            )
    return Rates(
        devices={tier: constants.device(devices[tier]) for tier in TIERS},
        links={name: constants.link(links[name]) for name in LINKS},
        pue={tier: constants.pue(tier) for tier in TIERS},
        intensity=constants.grid(country),
        contracted_share=dict(contracted_share),
    )


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
    _check_place("tier", tier, TIERS)
    operations = _amount("flops", flops)
    device = rates.devices[tier]
    seconds_per_flop = _inverse(device.achieved_flops)
    return _entry(
        rates,
        energy=_interval(operations, seconds_per_flop, device.power_w, rates.pue[tier]),
        contracted_share=rates.contracted_share[tier],
        cycle=cycle,
        phase=phase,
        stage=stage,
        place=tier,
        flops=operations,
        host_s=_amount("host_s", host_s),
        device_s=operations * seconds_per_flop.value,
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

    Returns:
        A modelled entry.

    Raises:
        ValueError: the link is unknown, or a number is negative or not finite.
    """
    _check_place("link", link, LINKS)
    up, down = _amount("up_bytes", up_bytes), _amount("down_bytes", down_bytes)
    profile = rates.links[link]
    directions = (up > 0) + (down > 0)
    seconds = (up + down) / profile.rate_bytes_per_s.value
    return _entry(
        rates,
        energy=_interval(up + down, profile.energy_j_per_byte),
        contracted_share=0.0,
        cycle=cycle,
        phase=phase,
        stage=stage,
        place=link,
        up_bytes=int(up),
        down_bytes=int(down),
        device_s=directions * profile.latency_s.value + seconds,
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


def _entry(
    rates: Rates,
    *,
    energy: Interval,
    contracted_share: float,
    flops: float = 0.0,
    up_bytes: int = 0,
    down_bytes: int = 0,
    host_s: float = 0.0,
    **where: Any,
) -> Entry:
    """Adds joules and grams to what was counted."""
    carbon = _interval(1 / constants.JOULES_PER_KWH, energy, rates.intensity)
    return Entry(
        flops=flops,
        up_bytes=up_bytes,
        down_bytes=down_bytes,
        host_s=host_s,
        energy_j=energy.value,
        energy_low_j=energy.low,
        energy_high_j=energy.high,
        carbon_location_g=carbon.value,
        carbon_location_low_g=carbon.low,
        carbon_location_high_g=carbon.high,
        carbon_market_g=carbon.value * (1 - contracted_share),
        kind=KIND,
        **where,
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
    sums = {field: sum(getattr(entry, field) for entry in here) for field in fields}
    # Kinds are never mixed without a label; an empty sum has the ledger's kind.
    kinds = sorted({entry.kind for entry in here}) or [KIND]
    return {**sums, "kind": "+".join(kinds)}


def _amount(name: str, value: SupportsFloat) -> float:
    """Plain float of a count, also of a NumPy or JAX scalar."""
    number = float(value)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name} is {value}: allowed are finite numbers from 0 up")
    return number


def _check_place(field: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"unknown {field} {value!r}: allowed are {', '.join(allowed)}")


def _check_keys(
    field: str, mapping: Mapping[str, object], wanted: Sequence[str]
) -> None:
    if set(mapping) != set(wanted):
        raise ValueError(
            f"{field} has the keys {sorted(mapping)}: needed are exactly "
            f"{', '.join(wanted)}"
        )
