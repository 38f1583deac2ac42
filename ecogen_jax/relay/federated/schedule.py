"""The devices of each round and the simulated faults, drawn before the run.

Every round is drawn from its own seed, so that a longer run starts with the same
rounds. The random numbers for faults do not depend on the fault probabilities.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

FAULTS = ("ok", "drop", "nan", "stale", "shape")
"""Names of the faults, by code."""

OK, DROP, NAN, STALE, SHAPE = range(len(FAULTS))


class Faults(NamedTuple):
    """Probabilities of faults.

    Attributes:
      drop: probability, for each active device and round, that it sends nothing.
      nan: likewise, that it sends NaN.
      stale: likewise, that it sends the message of an earlier round.
      shape: likewise, that its message has a wrong shape. At most one of the four
        happens, so they sum to at most 1.
      straggler: likewise, that it is slow, independent of the other faults.
      straggler_share: share of the local steps that a slow device does, in (0, 1].
      flip: share of all devices that train on flipped labels, `classes - 1 - y`, all
        through the run.
    """

    drop: float = 0.0
    nan: float = 0.0
    stale: float = 0.0
    shape: float = 0.0
    straggler: float = 0.0
    straggler_share: float = 1.0
    flip: float = 0.0


class Schedule(NamedTuple):
    """The devices and faults of each round of a run.

    Attributes:
      active: int32 `[rounds, active]`, the devices that take part, in random order.
      edge: int32 `[rounds, active]`, the edge of each of them.
      fault: int8 `[rounds, active]`, codes of `FAULTS`.
      steps_share: float32 `[rounds, active]`, the share of the local steps that each
        does: whole steps, and at least one.
      flips: bool `[devices]`, which devices train on flipped labels.
    """

    active: np.ndarray
    edge: np.ndarray
    fault: np.ndarray
    steps_share: np.ndarray
    flips: np.ndarray


def schedule(
    rng: np.random.Generator,
    *,
    rounds: int,
    num_devices: int,
    active: int,
    steps: int,
    edges_of: Int[np.ndarray, " devices"],
    faults: Faults,
) -> Schedule:
    """Draws a run's schedule.

    Args:
      rng: source of randomness, from which generators are spawned.
      rounds: how many.
      num_devices: in all.
      active: devices that take part in a round, sampled without replacement.
      steps: of a device that is no straggler.
      edges_of: the edge of each device `[devices]`.
      faults: how often something goes wrong.

    Returns:
      The schedule; with more rounds, the same `rng` begins with the same rows.

    Raises:
      ValueError: there are fewer devices than active ones, or a rate is out of range.
    """
    if not 1 <= active <= num_devices:
        raise ValueError(
            f"federated.active is {active}: allowed is 1 to {num_devices}, the number "
            "of devices; lower it or add devices"
        )
    _check(faults)
    run, *each = rng.spawn(1 + rounds)
    rows = [_row(one, num_devices, active, faults) for one in each]
    devices, codes, shares = (np.stack(column) for column in zip(*rows, strict=True))
    done = np.maximum(np.round(shares * steps), 1.0)
    flips = np.zeros(num_devices, bool)
    flips[run.permutation(num_devices)[: round(faults.flip * num_devices)]] = True
    return Schedule(
        active=devices.astype(np.int32),
        edge=edges_of[devices].astype(np.int32),
        fault=codes.astype(np.int8),
        steps_share=(done / steps).astype(np.float32),
        flips=flips,
    )


def _row(
    rng: np.random.Generator, num_devices: int, active: int, faults: Faults
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Devices, fault codes and shares of steps of one round, `[active]` each."""
    devices = rng.choice(num_devices, active, replace=False)
    drawn, slow = rng.random((2, active))
    bounds = np.cumsum([faults.drop, faults.nan, faults.stale, faults.shape])
    # Below the first bound: the first fault; beyond the last bound: no fault.
    codes = (np.searchsorted(bounds, drawn, side="right") + 1) % len(FAULTS)
    shares = np.where(slow < faults.straggler, faults.straggler_share, 1.0)
    return devices, codes, shares


def _check(faults: Faults) -> None:
    for name, rate in faults._asdict().items():
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"faults.{name} is {rate}: allowed is 0 to 1")
    if faults.straggler_share == 0.0:
        raise ValueError(
            "faults.straggler_share is 0: allowed is above 0 to 1; for devices that do "
            "nothing, set faults.drop"
        )
    total = faults.drop + faults.nan + faults.stale + faults.shape
    if total > 1.0 + 1e-9:  # some rates that add up to 1 are a little more as floats
        raise ValueError(
            f"faults.drop, nan, stale and shape sum to {total}: allowed is at most 1, "
            "since at most one of them happens to a message"
        )
