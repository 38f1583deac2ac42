"""V10: training FLOPs of published models, from their shapes through the meter."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import pandas as pd

from ecogen_jax.energy import predict
from papers_repro.energy import accounting, rows, transformers

MODELS = {
    "gpt3": transformers.gpt,
    "t5": transformers.t5,
    "meena": transformers.evolved,
    "lamda": transformers.gated,
}


def v10() -> pd.DataFrame:
    """FLOPs of a training step by our walk, times the tokens of the source.

    Returns:
        One bar a row: training FLOPs and, to check the shapes, parameters. A row
        without a tolerance explains another and has no verdict; so have the rows under
        ``ways``, other derivations of the totals that miss.
    """
    ours: dict[str, float] = {}
    for model in MODELS:
        ours |= {f"{model}.{key}": n for key, n in count(model, _sizes(model)).items()}
    cells = accounting.cells("V10")
    table = [_row(cell, ours[cell["ours"]], cell.get("tolerance")) for cell in cells]
    totals = {cell["ours"]: cell for cell in cells if "tolerance" in cell}
    for way in accounting.cells("V10_ways"):
        total = totals[f"{way['model']}.flops"]
        described = way | {"row": f"ways.{way['row']}", "published": total["published"]}
        table.append(_row(total | described, _derive(way)))
    return rows.frame(table)


def count(model: str, sizes: dict[str, float]) -> dict[str, float]:
    """Training FLOPs and parameters of one model.

    Args:
        model: key of `MODELS`.
        sizes: fields of `transformers.Config`, and ``tokens``: all that it was
            trained on, those of encoder and decoder together.

    Returns:
        ``flops`` and ``params``; parameters of embeddings are left out for LaMDA,
        whose paper counts so.
    """
    config, blocks = _shape(model, sizes)
    tree = transformers.parameters(config, blocks)
    if model == "lamda":
        del tree["embed"]
    return {
        "flops": sizes["tokens"] * transformers.flops_per_token(config, blocks),
        "params": float(sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))),
    }


def _derive(way: Mapping[str, Any]) -> float:
    """Training FLOPs by one of the ways of ``V10_ways.csv``."""
    if way["count"] == "6 N D":
        return predict.training_flops(way["params"], way["tokens"])
    config, blocks = _shape(way["model"], _sizes(way["model"]))
    if way["count"] == "weights":
        return way["tokens"] * transformers.weight_flops_per_token(config, blocks)
    recompute = {"walk": False, "recomputed": True}[way["count"]]
    a_token = transformers.flops_per_token(config, blocks, recompute=recompute)
    return way["tokens"] * a_token


def _sizes(model: str) -> dict[str, float]:
    """Inputs of one model, by name."""
    cells = accounting.cells("V10_models")
    return {cell["input"]: cell["value"] for cell in cells if cell["model"] == model}


def _shape(
    model: str, sizes: Mapping[str, float]
) -> tuple[transformers.Config, transformers.Blocks]:
    shape = {key: int(value) for key, value in sizes.items() if key != "tokens"}
    config = transformers.Config(**shape)
    return config, MODELS[model](config)


def _row(
    cell: Mapping[str, Any], ours: float, tolerance: float | None = None
) -> dict[str, Any]:
    return rows.row(
        id=f"V10.{cell['row']}",
        quantity=cell["quantity"],
        unit=cell["unit"],
        published=_published(cell),
        locator=f"{cell['source']}, {cell['locator']}",
        standing=cell["standing"],
        ours=ours,
        tolerance=tolerance,
        kind=cell["kind"],
        sort="prediction",
    )


def _published(cell: Mapping[str, Any]) -> float:
    """The printed value, or chips x rate x days where the source prints only those."""
    if "published" not in cell:
        seconds = 86400 * cell["days"]
        return cell["chip_tflop_per_s"] * 1e12 * cell["chips"] * seconds
    return cell["published"]


TABLES = {"V10": v10}
