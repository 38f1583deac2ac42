"""Uncertainty of the totals: Monte Carlo over all constants, and a tornado analysis.

Each constant of the ledger is one uncertain input. A constant that two tiers share (the
same device at edge and end, say) is drawn once, so its error does not average out.
Distributions, by the width of the interval [low, high] around the value:

* high <= 10 low: triangular, with its peak at the value;
* wider: log-uniform, since the interval only gives the order of magnitude;
* low = high: the value itself.

Counts (FLOPs, bytes) are taken as exact. A party waits for as long as the working tier
takes, so its seconds depend on the speed of that tier's device.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ecogen_jax.energy.constants import JOULES_PER_KWH, Constant
from ecogen_jax.energy.ledger import Entry, Interval
from ecogen_jax.energy.rates import LINKS, TIERS, Rates

WIDE = 10.0
COVERAGE = 0.9
DRAWS = 10_000

Inputs = Mapping[str, jax.Array]
Totals = Callable[[Inputs], tuple[jax.Array, jax.Array]]


class Counts(NamedTuple):
    """The counts of a ledger, before any constant.

    Attributes:
        flops: operations by tier.
        num_bytes: bytes in both directions by link.
        wait_s: seconds of waiting by the tier that waits and the one that works, with
            the devices of the latter at the value of their speed.
    """

    flops: dict[str, float]
    num_bytes: dict[str, float]
    wait_s: dict[tuple[str, str], float]


class Bar(NamedTuple):
    """The effect of one input on the totals, with all others at their value.

    Attributes:
        name: the input, such as ``t4 power_w``.
        constant: its value and interval.
        energy_j: joules in all with the input at its value, low and high.
        carbon_g: grams in all, likewise.
    """

    name: str
    constant: Constant
    energy_j: Interval
    carbon_g: Interval


class Uncertainty(NamedTuple):
    """Totals of a run with their 90 % intervals.

    Attributes:
        energy_j: joules, at the best values and the 5 % and 95 % quantiles.
        carbon_g: location-based grams, likewise.
        bars: the inputs, the one that moves the joules or grams most first.
    """

    energy_j: Interval
    carbon_g: Interval
    bars: list[Bar]


def analyse(rates: Rates, counts: Counts, *, seed: int = 0) -> Uncertainty:
    """Propagates the intervals of all constants to the totals.

    Args:
        rates: the constants.
        counts: from `count`, or counted beforehand.
        seed: of the draws.

    Returns:
        The totals with 90 % intervals, and the inputs by what they move.
    """
    names = _used(rates, counts)
    totals = _totals(rates, counts)
    inputs = {name: _array(constant.value) for name, constant in names.items()}
    draws = jax.vmap(totals)(_draw(names, jax.random.key(seed)))
    best = [float(total) for total in totals(inputs)]
    tail = (1 - COVERAGE) / 2
    energy_j, carbon_g = (
        Interval(value, *map(float, jnp.quantile(drawn, _array([tail, 1 - tail]))))
        for value, drawn in zip(best, draws, strict=True)
    )
    return Uncertainty(energy_j, carbon_g, _tornado(names, inputs, totals))


def count(entries: Iterable[Entry], rates: Rates) -> Counts:
    """Adds up what a ledger counted.

    Args:
        entries: the ledger.
        rates: the constants it was made with, to tell waiting from its joules.

    Returns:
        FLOPs by tier, bytes by link, and seconds of waiting.
    """
    flops, num_bytes = dict.fromkeys(TIERS, 0.0), dict.fromkeys(LINKS, 0.0)
    wait_s: dict[tuple[str, str], float] = {}
    for entry in entries:
        if entry.place in LINKS:
            num_bytes[entry.place] += entry.up_bytes + entry.down_bytes
            continue
        flops[entry.place] += entry.flops
        if entry.idle_j:
            pair = entry.place, entry.waits_for
            seconds = entry.idle_j / rates.idle_power[entry.place].value
            wait_s[pair] = wait_s.get(pair, 0.0) + seconds
    return Counts(flops, num_bytes, wait_s)


def to_json(found: Uncertainty) -> dict[str, Any]:
    """The content of ``uncertainty.json``: plain numbers, the inputs in order."""
    return {
        "coverage": COVERAGE,
        "draws": DRAWS,
        "energy_j": found.energy_j._asdict(),
        "carbon_g": found.carbon_g._asdict(),
        "inputs": [
            {
                "name": bar.name,
                **bar.constant._asdict(),
                "energy_j": bar.energy_j._asdict(),
                "carbon_g": bar.carbon_g._asdict(),
            }
            for bar in found.bars
        ],
    }


def _used(rates: Rates, counts: Counts) -> dict[str, Constant]:
    """The constants that enter the totals, by a name that tells them apart."""
    used = {"grid intensity": rates.intensity}
    for tier in TIERS:
        device = rates.devices[tier]
        waits = any(waiting == tier for waiting, _ in counts.wait_s)
        works = any(working == tier for _, working in counts.wait_s)
        if counts.flops[tier] or works:
            used[f"{device.name} achieved_flops"] = device.achieved_flops
        if counts.flops[tier]:
            used[f"{device.name} power_w"] = device.power_w
        if waits:
            used[f"{device.name} idle_power"] = rates.idle_power[tier]
        if counts.flops[tier] or waits:
            used[f"{tier} pue"] = rates.pue[tier]
    for link in LINKS:
        if counts.num_bytes[link]:
            used[f"{rates.links[link].name} {rates.link_view} J/B"] = rates.link_energy[
                link
            ]
    return used


def _totals(rates: Rates, counts: Counts) -> Totals:
    """The ledger's sums as a function of its constants."""

    def totals(inputs: Inputs) -> tuple[jax.Array, jax.Array]:
        energy_j = _array(0.0)
        for tier in TIERS:
            device, it_j = rates.devices[tier].name, _array(0.0)
            if counts.flops[tier]:
                seconds = counts.flops[tier] / inputs[f"{device} achieved_flops"]
                it_j += seconds * inputs[f"{device} power_w"]
            for (waiting, working), wait_s in counts.wait_s.items():
                if waiting == tier:
                    seconds = wait_s * _slowness(rates, working, inputs)
                    it_j += seconds * inputs[f"{device} idle_power"]
            if f"{tier} pue" in inputs:
                energy_j += it_j * inputs[f"{tier} pue"]
        for link in LINKS:
            if counts.num_bytes[link]:
                name = f"{rates.links[link].name} {rates.link_view} J/B"
                energy_j += counts.num_bytes[link] * inputs[name]
        return energy_j, energy_j / JOULES_PER_KWH * inputs["grid intensity"]

    return totals


def _slowness(rates: Rates, tier: str, inputs: Inputs) -> jax.Array:
    """How many times as long a tier takes as at the value of its device's speed."""
    if not tier:  # an entry of an older checkpoint does not say who worked
        return _array(1.0)
    device = rates.devices[tier]
    return device.achieved_flops.value / inputs[f"{device.name} achieved_flops"]


def _draw(names: Mapping[str, Constant], key: jax.Array) -> dict[str, jax.Array]:
    """``DRAWS`` values of every input."""
    keys = jax.random.split(key, len(names))
    return {
        name: quantile(constant, jax.random.uniform(one, (DRAWS,)))
        for (name, constant), one in zip(names.items(), keys, strict=True)
    }


def quantile(constant: Constant, probability: jax.Array) -> jax.Array:
    """Inverse distribution function of a constant.

    Args:
        constant: value and interval, in any unit.
        probability: in [0, 1], of any shape.

    Returns:
        Values in the constant's unit, of the same shape.
    """
    low, value, high = constant.low, constant.value, constant.high
    if high > WIDE * low:
        return low * jnp.exp(probability * jnp.log(_array(high / low)))
    width = high - low
    rising = low + jnp.sqrt(probability * (width * (value - low)))
    falling = high - jnp.sqrt((1 - probability) * (width * (high - value)))
    return jnp.where(probability * width < value - low, rising, falling)


def _tornado(
    names: Mapping[str, Constant], inputs: Inputs, totals: Totals
) -> list[Bar]:
    def ends(name: str, constant: Constant) -> Bar:
        moved = _array([constant.value, constant.low, constant.high])
        energy, carbon = jax.vmap(lambda x: totals({**inputs, name: x}))(moved)
        return Bar(name, constant, _between(energy), _between(carbon))

    bars = [ends(name, constant) for name, constant in names.items()]
    return sorted(bars, key=lambda bar: bar.carbon_g.low - bar.carbon_g.high)


def _between(totals: jax.Array) -> Interval:
    """The total at the value, and the smaller and larger of those at the ends."""
    value, one, other = map(float, totals)
    return Interval(value, min(one, other), max(one, other))


def _array(value: float | list[float]) -> jax.Array:
    return jnp.asarray(value, jnp.float32)
