"""V10: training FLOPs of published models, from their shapes through the meter."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import pandas as pd

from papers_repro.energy import rows, transformers

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
        without a tolerance explains another and has no verdict.
    """
    inputs = rows.cells("V10_models")
    ours: dict[str, float] = {}
    for model in MODELS:
        own = inputs[inputs["model"] == model]
        sizes = dict(zip(own["input"], own["value"], strict=True))
        ours |= {f"{model}.{key}": n for key, n in count(model, sizes).items()}
    return rows.frame(
        [
            rows.row(
                id=f"V10.{cell['row']}",
                quantity=cell["quantity"],
                unit=cell["unit"],
                published=_published(cell),
                locator=f"{cell['source']}, {cell['locator']}",
                standing=cell["standing"],
                ours=ours[cell["ours"]],
                tolerance=None if math.isnan(cell["tolerance"]) else cell["tolerance"],
                kind=cell["kind"],
                sort="prediction",
            )
            for cell in rows.cells("V10").to_dict("records")
        ]
    )


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
    tokens = sizes["tokens"]
    shape = {key: int(value) for key, value in sizes.items() if key != "tokens"}
    config = transformers.Config(**shape)
    blocks = MODELS[model](config)
    tree = transformers.parameters(config, blocks)
    if model == "lamda":
        del tree["embed"]
    return {
        "flops": tokens * transformers.flops_per_token(config, blocks),
        "params": float(sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))),
    }


def _published(cell: Mapping[Any, Any]) -> float:
    """The printed value, or chips x rate x days where the source prints only those."""
    if math.isnan(cell["published"]):
        seconds = 86400 * cell["days"]
        return cell["chip_tflop_per_s"] * 1e12 * cell["chips"] * seconds
    return cell["published"]


TABLES = {"V10": v10}
