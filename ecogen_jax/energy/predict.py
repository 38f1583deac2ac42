"""Energy from a description of the model alone: nothing runs, nothing is traced.

Plain floats in and out. Time comes from a roofline whose two terms add up (serving
systems overlap them little), power from a constant fraction of the full power:

    seconds = bytes / (n x bandwidth x e_b) + FLOPs / (n x peak x e_c) + L log2(n) h
    joules  = seconds x n x full power x e_p

with n devices, L layers, h seconds for one step of a tree of messages between the
devices, and the fractions e of `Efficiency`. `DATASHEET` sets every fraction to 1:
the two errors of that choice, too little time and too much power, partly cancel.
"""

import math
from typing import NamedTuple

from ecogen_jax.energy import accounting
from ecogen_jax.energy.accounting import Number


class Accelerator(NamedTuple):
    """Datasheet of one device.

    Attributes:
        peak_flops: dense peak at the precision of the weights, FLOP/s.
        peak_16bit_flops: dense peak at 16 bits, FLOP/s; see `Efficiency`.
        bandwidth_bytes_per_s: peak memory bandwidth, B/s.
        full_power_w: board power, W.
    """

    peak_flops: float
    peak_16bit_flops: float
    bandwidth_bytes_per_s: float
    full_power_w: float


class Transformer(NamedTuple):
    """The properties of a language model that decoding depends on.

    Attributes:
        params: all parameters.
        active_params: parameters that one token uses; equal to ``params`` if dense.
        bytes_per_param: 2 at 16 bits, 1 at 8 bits.
        num_layers: blocks.
        cache_bytes_per_token: keys and values of one token in all layers, B.
        num_experts: experts of one layer; 0 if dense.
        experts_per_token: experts that one token is sent to; 0 if dense.
    """

    params: float
    active_params: float
    bytes_per_param: float
    num_layers: int
    cache_bytes_per_token: float
    num_experts: int = 0
    experts_per_token: int = 0


class Load(NamedTuple):
    """The load of a served model.

    Attributes:
        batch: requests decoded together.
        prompt_tokens: mean length of a prompt.
        output_tokens: mean length of an answer.
    """

    batch: Number
    prompt_tokens: Number
    output_tokens: Number


class Efficiency(NamedTuple):
    """The fractions of the datasheet values that a program reaches.

    Attributes:
        bandwidth: fraction of the peak bandwidth.
        compute: fraction of the peak FLOP/s in dense layers.
        expert_compute: fraction of the 16-bit peak in mixtures of experts: small
            groups of tokens and their exchange between devices, not the precision,
            bound them.
        hop_s: seconds a layer and level of the tree between the devices, in mixtures
            of experts.
        power: fraction of the full power.
    """

    bandwidth: float
    compute: float
    expert_compute: float
    hop_s: float
    power: float


class Estimate(NamedTuple):
    """Predicted time and energy of one step, all devices together."""

    seconds: float
    joules: float


class CapEffect(NamedTuple):
    """Time and energy under a power cap over those without it."""

    time_ratio: float
    energy_ratio: float


DATASHEET = Efficiency(1.0, 1.0, 1.0, 0.0, 1.0)


def training_flops(params: Number, tokens: Number) -> float:
    """Counts training: 2 N D forward and 4 N D backward.

    Args:
        params: parameters that one token meets, N.
        tokens: training tokens, D.

    Returns:
        6 N D. Kaplan et al. 2020 (arXiv 2001.08361) section 2.1; attention scores
        and embeddings are left out.

    Raises:
        ValueError: a number is not positive.
    """
    _positive(params=params, tokens=tokens)
    return 6 * params * tokens


def training_energy_kwh(
    flops: Number, *, achieved_flops: Number, power_w: Number, pue: Number
) -> float:
    """Energy of a training run; the number of chips cancels.

    Args:
        flops: operations of the run.
        achieved_flops: FLOP/s that one chip reaches.
        power_w: power of one chip with its share of the system, W.
        pue: facility energy over device energy, from 1.

    Returns:
        Energy at the facility, kWh. Patterson et al. 2021 (arXiv 2104.10350).

    Raises:
        ValueError: a number is not positive, or ``pue`` is below 1.
    """
    _positive(flops=flops, achieved_flops=achieved_flops, power_w=power_w)
    return accounting.energy_kwh(flops / achieved_flops / 3600, power_w, pue)


def forward(
    device: Accelerator, efficiency: Efficiency, *, num_bytes: Number, flops: Number
) -> Estimate:
    """Predicts one pass of a dense model on one device.

    Args:
        device: its datasheet.
        efficiency: what the program reaches of it.
        num_bytes: bytes read from memory, B.
        flops: operations.

    Returns:
        Seconds and joules of the pass.

    Raises:
        ValueError: a number is not positive.
    """
    _positive(num_bytes=num_bytes, flops=flops)
    seconds = num_bytes / (device.bandwidth_bytes_per_s * efficiency.bandwidth)
    seconds += flops / (device.peak_flops * efficiency.compute)
    return Estimate(seconds, seconds * device.full_power_w * efficiency.power)


def decode_step(
    model: Transformer,
    device: Accelerator,
    load: Load,
    efficiency: Efficiency,
    *,
    num_devices: int,
) -> Estimate:
    """Predicts one decoding step: one new token for every request of the batch.

    Each step also carries its share of prefill: ``prompt_tokens / output_tokens``
    prompt tokens for each new one. Left out: the scores of attention, and whatever
    the host does between steps.

    Args:
        model: the language model.
        device: datasheet of each device.
        load: batch and lengths.
        efficiency: what the server reaches of the datasheet.
        num_devices: devices that share the model.

    Returns:
        Seconds and joules of the step; joules per token are joules / batch.

    Raises:
        ValueError: a number is not positive.
    """
    _positive(**load._asdict(), num_devices=num_devices)
    prefill = 1 + load.prompt_tokens / load.output_tokens
    flops = 2 * model.active_params * load.batch * prefill
    speed = device.peak_flops * efficiency.compute
    if model.num_experts:
        speed = device.peak_16bit_flops * efficiency.expert_compute
    bandwidth = device.bandwidth_bytes_per_s * efficiency.bandwidth
    traffic_s = step_bytes(model, load) / bandwidth / num_devices
    seconds = traffic_s + flops / speed / num_devices
    if model.num_experts:
        seconds += model.num_layers * math.log2(num_devices) * efficiency.hop_s
    power_w = num_devices * device.full_power_w * efficiency.power
    return Estimate(seconds, seconds * power_w)


def step_bytes(model: Transformer, load: Load) -> float:
    """Counts what one decoding step reads: weights once, the cache of each request.

    With k of E experts for each token, drawn evenly, a batch of B touches the share
    1 - (1 - k/E)^B of them. The cache holds, on average over an answer, the prompt
    and half of the answer.

    Args:
        model: the language model.
        load: batch and lengths.

    Returns:
        Bytes, B.
    """
    context = load.prompt_tokens + load.output_tokens / 2
    cache = model.cache_bytes_per_token * load.batch * context
    touched = model.params
    if model.num_experts > model.experts_per_token:
        idle = 1 - model.experts_per_token / model.num_experts
        in_experts = (model.params - model.active_params) / idle
        touched -= in_experts * idle**load.batch
    return touched * model.bytes_per_param + cache


def power_cap(
    cap_w: Number, *, base_w: Number, static_w: Number, clocked_share: Number
) -> CapEffect:
    """Predicts a power cap that binds, relative to a looser cap that also binds.

    What is left above the static power feeds the cores, whose power grows with the
    cube of their clock f (voltage follows frequency); a share of the time scales
    with 1/f and the rest, memory traffic, stays:

        f = ((cap - static) / (base - static))^(1/3)
        time ratio = 1 + share x (1/f - 1);  energy ratio = time ratio x cap / base

    Args:
        cap_w: the cap, W.
        base_w: the cap of the reference, W.
        static_w: power that the clock does not change: idle and memory, W.
        clocked_share: share of the reference's time that scales with the clock.

    Returns:
        Time and energy over those of the reference.

    Raises:
        ValueError: not static_w < cap_w <= base_w, or the share is not in 0 to 1.
    """
    if not static_w < cap_w <= base_w:
        raise ValueError(
            f"cap_w is {cap_w}: allowed are more than static_w ({static_w}) up to "
            f"base_w ({base_w}); a cap below the static power stops the device"
        )
    if not 0 <= clocked_share <= 1:
        raise ValueError(f"clocked_share is {clocked_share}: allowed is 0 to 1")
    clock = ((cap_w - static_w) / (base_w - static_w)) ** (1 / 3)
    time_ratio = 1 + clocked_share * (1 / clock - 1)
    return CapEffect(time_ratio, time_ratio * cap_w / base_w)


def _positive(**numbers: Number) -> None:
    for name, number in numbers.items():
        if not (math.isfinite(number) and number > 0):
            raise ValueError(
                f"{name} is {number}: allowed are finite numbers above 0; "
                "check its unit in the name"
            )
