"""Tables and the plot of the attack results, from `attacks/attacks.csv`."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecogen_jax.report.tables import TextTable

FOUND, CHANCE = "#0072B2", "#D55E00"  # of plots.COLORS: distinguishable without colours
WIDTH_IN, ROW_IN = 6.4, 0.3


def membership(rows: pd.DataFrame) -> TextTable:
    """How well images of a device are distinguished from others, by type of message.

    Args:
        rows: of `run.attacks.attack`, of one run.

    Returns:
        One row an attack; intervals of 95 % in brackets.
    """
    found = judged(rows, "auc")
    cells: list[tuple[str, ...]] = [
        (
            row["message"],
            _attack(row),
            f"{row['round']:.0f}",
            _between(row, "auc", "{:.3f}"),
            _between(row, "tpr", "{:.1%}"),
        )
        for _, row in found.iterrows()
    ]
    header = ("message", "attack", "round", "AUC", "TPR at 1 % FPR")
    title = f"{_protocol(rows)}: membership inference (chance: 0.5 and 1 %)"
    return TextTable(title, header, cells)


def inversion(rows: pd.DataFrame) -> TextTable:
    """How near the images found behind an update come to the true ones.

    Args:
        rows: of `run.attacks.attack`, of one run.

    Returns:
        One row an attack; the interval of 95 % in brackets, which a single pair of
        updates does not have. Chance is what the same attack on the update of other
        images of the same labels gives, and the gain the difference to it, paired.
    """
    cells: list[tuple[str, ...]] = [
        (
            _attack(row),
            f"{row['steps']:.0f}",
            f"{row['batch']:.0f}",
            f"{row['round']:.0f}",
            f"{row['psnr_db']:.1f}",
            f"{row['chance_psnr_db']:.1f}",
            _between(row, "gain_db", "{:+.1f}"),
            f"{row['mse']:.3f}",
            f"{row['chance_mse']:.3f}",
        )
        for _, row in judged(rows, "psnr_db").iterrows()
    ]
    header = (
        *("attack", "steps", "images", "round", "PSNR", "chance", "gain"),
        *("MSE", "chance"),
    )
    return TextTable(
        f"{_protocol(rows)}: inversion of an update (PSNR in dB)", header, cells
    )


def judged(rows: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """The rows that have a quantity, such as `auc`; none where no attack has it."""
    if quantity not in rows:
        return rows.iloc[:0]
    return rows.dropna(subset=[quantity])


def draw(rows: pd.DataFrame) -> Figure:
    """Draws each attack with its interval beside chance, a panel for each quantity.

    Args:
        rows: of `run.attacks.attack`, of one run.
    """
    panels = {
        quantity: found
        for quantity in ("auc", "psnr_db")
        if len(found := judged(rows, quantity))
    }
    heights = [len(found) + 3 for found in panels.values()]
    figure = Figure(figsize=(WIDTH_IN, ROW_IN * sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), squeeze=False, height_ratios=heights)
    for axes, (quantity, found) in zip(grid[:, 0], panels.items(), strict=True):
        _panel(axes, found, quantity)
    synthetic = " (SYNTHETIC DATA)" if rows["synthetic_data"].any() else ""
    figure.suptitle(f"{_protocol(rows)}: what an eavesdropper gains{synthetic}")
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, quantity: str) -> None:
    names = [_name(row) for _, row in rows.iterrows()]
    places = range(len(rows))
    _points(axes, rows, quantity, FOUND, "o", "attack")
    if quantity == "auc":
        axes.axvline(0.5, color=CHANCE, linestyle="--", label="chance")
        axes.set_xlabel("area under the ROC curve, member or not")
    else:
        _points(axes, rows, f"chance_{quantity}", CHANCE, "D", "chance")
        axes.set_xlabel("PSNR of the images found (dB)")
    axes.set_yticks(places, names, fontsize="small")
    axes.invert_yaxis()
    axes.grid(axis="x", color="#DDDDDD")
    axes.legend(frameon=False, fontsize="small")


def _points(
    axes: Axes, rows: pd.DataFrame, name: str, color: str, marker: str, label: str
) -> None:
    middle = rows[name].to_numpy()
    reach = [
        (middle - rows[f"{name}_low"]).clip(lower=0),
        (rows[f"{name}_high"] - middle).clip(lower=0),
    ]
    axes.errorbar(
        middle,
        range(len(rows)),
        xerr=reach,
        fmt=marker,
        color=color,
        capsize=3,
        label=label,
    )


def _protocol(rows: pd.DataFrame) -> str:
    return rows["protocol"].iloc[0]


def _attack(row: pd.Series) -> str:
    protection = "" if row["protection"] == "none" else f", {row['protection']}"
    return f"{row['attack']}{protection}"


def _name(row: pd.Series) -> str:
    """Of a line of the plot; of the columns of an inversion a run may have none."""
    if not row.get("batch", 0) > 0:
        return f"{row['message']}: {_attack(row)}"
    steps = "1 step" if row["steps"] == 1 else f"{row['steps']:.0f} steps"
    images = "1 image" if row["batch"] == 1 else f"{row['batch']:.0f} images"
    return f"{_attack(row)}: {images}, {steps}, round {row['round']}"


def _between(row: pd.Series, name: str, form: str) -> str:
    middle, low, high = (
        form.format(row[column]) for column in (name, f"{name}_low", f"{name}_high")
    )
    return middle if math.isnan(row[f"{name}_low"]) else f"{middle} [{low}, {high}]"
