"""Devices and links of the ledger: speed, power, memory and embodied carbon.

The cells are ``tables/devices.csv`` and ``tables/links.csv``, each with its interval,
source, date and kind. A device has only the cells that a source gives; a missing cell
raises an error that names the devices that have it.
"""

from typing import NamedTuple

from ecogen_jax.energy import constants
from ecogen_jax.energy.constants import Constant

TRAINING = ("achieved_flops", "power_w")
"""What a device needs so that a ledger can turn FLOPs into joules."""


class Device(NamedTuple):
    """Speed and power of one device while it trains; see `device_cell` for the rest.

    Attributes:
        name: key in ``tables/devices.csv``.
        achieved_flops: FLOP/s that a training program reaches, not the peak.
        power_w: power drawn meanwhile, in W; the boundary is stated in its source.
        embodied: emissions of its manufacturing, in kg; None if no source gives them.
    """

    name: str
    achieved_flops: Constant
    power_w: Constant
    embodied: Constant | None


class Link(NamedTuple):
    """Speed and energy of one network link.

    Attributes:
        name: key in ``tables/links.csv``.
        rate_bytes_per_s: payload rate of either direction, in B/s.
        latency_s: delay before the first byte, in s.
        energy_j_per_byte: average view: all network energy over all traffic, in J/B.
        marginal_j_per_byte: marginal view: what one more byte adds to the power of a
            network that runs anyway, in J/B; a small part of the average.
    """

    name: str
    rate_bytes_per_s: Constant
    latency_s: Constant
    energy_j_per_byte: Constant
    marginal_j_per_byte: Constant


def device(name: str) -> Device:
    """Looks up a device.

    Args:
        name: one of ``constants.names("devices")``.

    Returns:
        Its achieved FLOP/s and its power in W.

    Raises:
        ValueError: the name is unknown, or no source gives its speed or power.
    """
    speed, power = (device_cell(name, quantity) for quantity in TRAINING)
    return Device(name, speed, power, constants.lookup("devices", name).get("embodied"))


def device_cell(name: str, quantity: str) -> Constant:
    """Looks up one quantity of a device.

    Args:
        name: one of ``constants.names("devices")``.
        quantity: ``achieved_flops``, ``power_w``, ``idle_power``, ``full_power`` (W),
            ``peak_bf16_flops`` and its like for fp16, fp32 and int8 (FLOP/s),
            ``bandwidth`` (B/s) or ``embodied`` (kg).

    Returns:
        The constant, in SI units.

    Raises:
        ValueError: the device is unknown, or no source gives it this quantity.
    """
    rows = constants.lookup("devices", name)
    if quantity not in rows:
        others = ", ".join(constants.names("devices", having=(quantity,))) or "none"
        raise ValueError(
            f"device {name!r} has no {quantity} in table devices, only "
            f"{', '.join(rows)}. Choose a device that has it ({others}), or add a "
            "row with its source to ecogen_jax/energy/tables/devices.csv"
        )
    return rows[quantity]


def link(name: str) -> Link:
    """Looks up a link.

    Args:
        name: one of ``constants.names("links")``.

    Returns:
        Its rate in B/s, latency in s and energy in J/B by both views.

    Raises:
        ValueError: the name is unknown.
    """
    rows = constants.lookup("links", name)
    return Link(name, *(rows[field] for field in Link._fields[1:]))
