"""The constants that turn FLOPs, bytes and seconds into joules, grams and litres.

They are looked up and checked once per run; the ledger itself only multiplies.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ecogen_jax.energy import constants
from ecogen_jax.energy import devices as hardware
from ecogen_jax.energy.constants import Constant

TIERS = ("cloud", "edge", "end")
LINKS = ("cloud_edge", "edge_end")
LINK_VIEWS = ("average", "marginal")
NO_WATER = "none"


class Rates(NamedTuple):
    """The constants of a run.

    Attributes:
        devices: device of each tier.
        links: profile of each link.
        link_energy: J/B of each link, in the chosen view.
        link_view: ``average`` (all network energy over all traffic) or ``marginal``
            (what one more byte adds).
        pue: power usage effectiveness of each tier.
        intensity: location-based grid intensity, g/kWh.
        contracted_share: share of carbon-free energy that each tier has contracted,
            0 to 1: an assumption of the config.
        lifetime: how long the devices of each tier are in use, s.
        idle_power: W of each tier's device that waits; empty where waiting is left out.
        wue: litres for a kWh of a tier's IT energy: of the cloud, or empty where water
            is left out.
    """

    devices: dict[str, hardware.Device]
    links: dict[str, hardware.Link]
    link_energy: dict[str, Constant]
    link_view: str
    pue: dict[str, Constant]
    intensity: Constant
    contracted_share: dict[str, float]
    lifetime: dict[str, Constant]
    idle_power: dict[str, Constant]
    wue: dict[str, Constant]


def rates(
    *,
    devices: Mapping[str, str],
    links: Mapping[str, str],
    country: str,
    contracted_share: Mapping[str, float],
    link_view: str = "average",
    include_idle: bool = False,
    cloud_water: str = NO_WATER,
) -> Rates:
    """Looks up every constant of a run.

    Args:
        devices: tier -> name in ``constants.names("devices")``.
        links: link -> name in ``constants.names("links")``.
        country: name in ``constants.names("grid")``.
        contracted_share: tier -> share of contracted carbon-free energy, 0 to 1.
        link_view: one of `LINK_VIEWS`.
        include_idle: whether parties that wait draw power, which needs the idle power
            of every device.
        cloud_water: name in ``constants.names("wue")``, or ``none``.

    Returns:
        The rates of all tiers and links.

    Raises:
        ValueError: a name is unknown, a tier or link is missing, a share is not
            between 0 and 1, or a device lacks a quantity that is needed.
    """
    check_keys("devices", devices, TIERS)
    check_keys("links", links, LINKS)
    check_keys("contracted_share", contracted_share, TIERS)
    for tier, share in contracted_share.items():
        if not 0 <= share <= 1:
            raise ValueError(
                f"contracted_share of {tier} is {share}: allowed is 0 (none) to 1 (all)"
            )
    view = _view(link_view)
    profiles = {name: hardware.link(links[name]) for name in LINKS}
    waiting = TIERS if include_idle else ()
    return Rates(
        devices={tier: hardware.device(devices[tier]) for tier in TIERS},
        links=profiles,
        link_energy={name: getattr(link, view) for name, link in profiles.items()},
        link_view=link_view,
        pue={tier: constants.pue(tier) for tier in TIERS},
        intensity=constants.grid(country),
        contracted_share=dict(contracted_share),
        lifetime={tier: constants.lifetime(tier) for tier in TIERS},
        idle_power={
            tier: hardware.device_cell(devices[tier], "idle_power") for tier in waiting
        },
        wue={} if cloud_water == NO_WATER else {"cloud": constants.wue(cloud_water)},
    )


def check_place(field: str, value: str, allowed: Sequence[str]) -> None:
    """Raises a ValueError where a tier or link is unknown."""
    if value not in allowed:
        raise ValueError(f"unknown {field} {value!r}: allowed are {', '.join(allowed)}")


def check_keys(
    field: str, mapping: Mapping[str, object], wanted: Sequence[str]
) -> None:
    """Raises a ValueError where a mapping does not have exactly the wanted keys."""
    if set(mapping) != set(wanted):
        raise ValueError(
            f"{field} has the keys {sorted(mapping)}: needed are exactly "
            f"{', '.join(wanted)}"
        )


def _view(link_view: str) -> str:
    """The field of `Link` that a view takes."""
    check_place("link_view", link_view, LINK_VIEWS)
    return {"average": "energy_j_per_byte", "marginal": "marginal_j_per_byte"}[
        link_view
    ]
