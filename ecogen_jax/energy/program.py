"""Energy and carbon of any JAX function on a named device, before it runs."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ecogen_jax.energy import constants, devices, loops, meter, roofline
from ecogen_jax.energy.ledger import Interval


class Estimate(NamedTuple):
    """What one call of a function would cost; every interval is modelled.

    Attributes:
        flops: operations of the call.
        seconds: time on one device.
        energy_j: joules of that device, without the overhead of a building.
        carbon_g: location-based gCO2e of those joules.
    """

    flops: float
    seconds: Interval
    energy_j: Interval
    carbon_g: Interval


def estimate(
    fn: Callable[..., Any],
    *args: Any,
    device: str = "h100",
    country: str = "World",
    while_trips: loops.WhileTrips = None,
) -> Estimate:
    """Predicts one call from its jaxpr; nothing is run or allocated.

    Seconds are those of `roofline.time_s`; the power is that of training programs.

    Args:
        fn: any function that JAX can trace.
        *args: its arguments; `jax.ShapeDtypeStruct` will do for arrays.
        device: name in ``constants.names("devices", devices.TRAINING)``.
        country: name in ``constants.names("grid")``.
        while_trips: most trips of ``while`` loops that do not show theirs, as in
            `meter.cost`. FLOPs, values and high ends take all of them, the low ends
            of the intervals none.

    Returns:
        FLOPs, seconds, joules and grams.

    Raises:
        ValueError: a name is unknown, the device lacks a quantity or a dtype, or a
            ``while`` loop has neither a static trip count nor a bound.
    """
    cost = meter.cost(fn, *args, while_trips=while_trips)
    profile = devices.device(device)
    seconds = roofline.time_s(cost, roofline.machine(device))
    energy_j = _times(seconds, profile.power_w)
    carbon_g = _times(energy_j, constants.grid(country), 1 / constants.JOULES_PER_KWH)
    return Estimate(cost.flops, seconds, energy_j, carbon_g)


def _times(
    amount: Interval, factor: constants.Constant, scale: float = 1.0
) -> Interval:
    return Interval(
        amount.value * factor.value * scale,
        amount.low * factor.low * scale,
        amount.high * factor.high * scale,
    )
