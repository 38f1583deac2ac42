"""Constants fitted on stated splits, and the models that use them row by row.

The splits are named in the cell files: all of ``V14_fit.csv`` (no model of it is in
``V14.csv``), and in ``V13.csv`` and ``V18.csv`` the rows marked ``fit``. A function
here reads ``published`` of no other row; `query_with_pixels_kwh` alone does.
``V14_wider.csv`` holds further models, for a way that was tried.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import optimize

from ecogen_jax.energy import accounting, predict
from papers_repro.energy import rows

Cell = dict[str, Any]
PICTURES = "image_classification"


def cells(name: str) -> list[Cell]:
    """Reads a cell file as one dictionary a row."""
    return [
        {str(key): value for key, value in cell.items()}
        for cell in rows.cells(name).to_dict("records")
    ]


@functools.cache
def number(name: str, bound: str = "value") -> float:
    """Reads one input of ``inputs.csv``, or one of its bounds."""
    (found,) = (cell for cell in cells("inputs") if cell["name"] == name)
    return float(found[bound])


@functools.cache
def device(name: str, bits: int) -> predict.Accelerator:
    """Reads a datasheet of ``accelerators.csv`` at one width of the weights."""
    (found,) = (cell for cell in cells("accelerators") if cell["device"] == name)
    return predict.Accelerator(
        peak_flops=float(found[f"peak_{bits}bit_flops"]),
        peak_16bit_flops=float(found["peak_16bit_flops"]),
        bandwidth_bytes_per_s=float(found["bandwidth_bytes_per_s"]),
        full_power_w=float(found["full_power_w"]),
    )


@functools.cache
def model(name: str) -> predict.Transformer:
    """Reads a language model of ``V14_models.csv``."""
    (found,) = (cell for cell in cells("V14_models") if cell["model"] == name)
    fields = predict.Transformer._fields
    return predict.Transformer(*(found[field] for field in fields))


def decode_step(cell: Cell, efficiency: predict.Efficiency) -> predict.Estimate:
    """One decoding step of a row of ``V14.csv`` or ``V14_fit.csv``."""
    served = model(cell["model"])
    return predict.decode_step(
        served,
        device(cell["device"], 8 * int(served.bytes_per_param)),
        predict.Load(cell["batch"], number("prompt_tokens"), cell["output_tokens"]),
        efficiency,
        num_devices=cell["num_devices"],
    )


def decode_j(cell: Cell, efficiency: predict.Efficiency) -> float:
    """Joules of one output token of such a row."""
    return decode_step(cell, efficiency).joules / cell["batch"]


def efficiency(split: Sequence[Cell]) -> predict.Efficiency:
    """Fits five constants to the speed and the energy of served models.

    Args:
        split: rows of ``V14_fit.csv``.

    Returns:
        The constants that minimise the squared logarithms of ours over measured,
        tokens per second and joules per token with the same weight.
    """

    def residuals(logs: np.ndarray) -> list[float]:
        guess = predict.Efficiency(*map(float, np.exp(logs)))
        errors = []
        for cell in split:
            step = decode_step(cell, guess)
            errors += [
                math.log(cell["batch"] / step.seconds / cell["tokens_per_s"]),
                math.log(step.joules / cell["batch"] / cell["j_per_token"]),
            ]
        return errors

    start = np.log([0.7, 0.5, 0.1, 1e-4, 0.7])
    best = optimize.least_squares(residuals, start, ftol=1e-12, xtol=1e-12).x
    return predict.Efficiency(*map(float, np.exp(best)))


@functools.cache
def fitted_efficiency() -> predict.Efficiency:
    """The five constants of the whole split."""
    return efficiency(cells("V14_fit"))


def query_work_j(cell: Cell) -> float:
    """Roofline energy of one query, the mean over the models of its task.

    Weights are held and streamed at 32 bits, as the libraries load them; the other
    devices of the node idle meanwhile, inside the measured boundary.

    Args:
        cell: row of ``V13.csv``.

    Returns:
        Joules without the overhead of calling the model.
    """
    energies = []
    for part in cells("V13_models"):
        if part["task"] != cell["row"]:
            continue
        params, passes = part["params_m"] * 1e6, cell["passes"]
        first, later = part["first_pass_gflop"] * 1e9, part["later_pass_gflop"] * 1e9
        if math.isnan(first):
            first = 2 * params * cell["prompt_tokens"]
        if math.isnan(later):
            later = 2 * params
        step = predict.forward(
            device("a100", 32),
            fitted_efficiency(),
            num_bytes=4 * params * passes,
            flops=first + later * (passes - 1),
        )
        energies.append(step.joules + step.seconds * number("other_gpus_idle_w"))
    return float(np.mean(energies))


def query_kwh(
    table: Sequence[Cell], calls: Callable[[Cell], float] = lambda cell: cell["passes"]
) -> list[float]:
    """Energy of 1000 queries with one overhead, in J a call, fitted on the split.

    Args:
        table: rows of ``V13.csv``.
        calls: how many overheads a query pays: by default one for each pass of the
            model; none at all leaves nothing to fit.

    Returns:
        kWh, one number a row.
    """
    work_j = np.array([query_work_j(cell) for cell in table])
    count = np.array([calls(cell) for cell in table], float)
    split = np.array([cell["split"] == "fit" for cell in table])
    seen_j = np.array([cell["published"] for cell in table])[split]
    seen_j *= accounting.JOULES_PER_KWH / 1000

    def loss(log_overhead: float) -> float:
        ours = work_j[split] + np.exp(log_overhead) * count[split]
        return float(np.sum(np.log(ours / seen_j) ** 2))

    overhead_j = np.exp(optimize.minimize_scalar(loss, bounds=(-5, 8)).x)
    joules = work_j + overhead_j * count
    return [float(j) * 1000 / accounting.JOULES_PER_KWH for j in joules]


def operations(cell: Cell) -> float:
    """Products and convolutions that the host starts for one query of ``V13.csv``."""
    later = cell["later_operations"] * (cell["passes"] - 1)
    return float(cell["first_operations"] + later)


def query_with_pixels_kwh(table: Sequence[Cell]) -> list[float]:
    """Energy of 1000 queries when the host also pays for each pixel of a picture.

    The cost of a pixel is what `query_kwh` leaves of image classification, which
    therefore is no held-out row here.

    Args:
        table: rows of ``V13.csv``.

    Returns:
        kWh, one number a row.
    """
    base = query_kwh(table)
    (seen,) = (i for i, cell in enumerate(table) if cell["row"] == PICTURES)
    a_pixel = (table[seen]["published"] - base[seen]) / table[seen]["pixels"]
    return [
        kwh + a_pixel * cell["pixels"] for kwh, cell in zip(base, table, strict=True)
    ]


def static_w() -> float:
    """Idle power and memory traffic at the achieved bandwidth of the capped GPU, W."""
    return number("a100_idle_w") + number("memory_j_per_byte") * traffic_bytes_per_s()


def traffic_bytes_per_s() -> float:
    """Achieved bandwidth of the capped GPU, B/s."""
    capped = device("a100_pcie", 16)
    return capped.bandwidth_bytes_per_s * fitted_efficiency().bandwidth


def cap_ratio(cell: Cell, share: float, static_w: float) -> float:
    """Time or energy at the cap of a row of ``V18.csv`` over that at 250 W."""
    effect = predict.power_cap(
        cell["cap_w"], base_w=250, static_w=static_w, clocked_share=share
    )
    return effect.energy_ratio if cell["what"] == "energy" else effect.time_ratio


def clocked_share(table: Sequence[Cell]) -> float:
    """Fits the share of the time that follows the clock, on the times of the split."""
    split = [c for c in table if c["split"] == "fit" and c["what"] == "time"]
    slope = np.array([cap_ratio(cell, 1.0, static_w()) - 1 for cell in split])
    seen = np.array([cell["published"] - 1 for cell in split])
    return float(slope @ seen / (slope @ slope))


def roofline_share() -> float:
    """The same share, not fitted here: compute time over all time in the roofline."""
    served = model("llama_65b")
    load = predict.Load(number("samsi_batch"), number("samsi_prompt_tokens"), 256)
    capped = device("a100_pcie", 16)
    endless = capped._replace(bandwidth_bytes_per_s=math.inf)
    compute, both = (
        predict.decode_step(served, chip, load, fitted_efficiency(), num_devices=4)
        for chip in (endless, capped)
    )
    return compute.seconds / both.seconds
