"""B5 as a picture: accuracy against joules, and grams of CO2e, so far."""

import pathlib
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, LogLocator, NullFormatter

from ecogen_jax.report.files import put
from ecogen_jax.report.runs import Run
from papers_repro.fedgen import at_energy, curves
from papers_repro.fedgen.experiments import CELLS, OURS, PROTOCOLS
from papers_repro.fedgen.table import COSTS

# Okabe and Ito, "Color Universal Design" (2008): told apart without colour vision.
# Black is ours, and markers tell apart what shares a colour.
COLORS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
    *("#E69F00", "#56B4E9", "#7F7F7F"),
)
MARKERS = "os^vD<>Pp"
WIDTH_IN, ROW_IN, LEGEND_IN = 7.2, 3.0, 1.5
ERRORS = (50, 30, 20, 10, 5, 3, 2, 1)
"""Ticks of the log axis, in percent; they are labelled by the accuracy."""

DRAWN = ("round", "end_seen", "energy_j", "carbon_g")
"""Columns of a curve that the picture needs."""

_ONE_INTENSITY = 1e-3  # largest relative difference of grams a joule


def write(found: Sequence[Run], folder: pathlib.Path) -> None:
    """Draws all protocols of B4 that were run, a row of panels a comparison.

    The curves are kept in a CSV, so that a comparison whose runs are not at hand stays
    in the picture, as it stays in the tables. Beside it is the ranking at equal energy.

    Args:
        found: finished runs; with none of B4, now or before, nothing is written.
        folder: of the tables.
    """
    states, kept = mean_curves(found), folder / "curves" / f"{COSTS}.csv"
    states |= _before(kept, states)
    cells = [cell for cell in CELLS if any(key[0] == cell for key in states)]
    if not cells:
        return
    synthetic = any(run.summary["synthetic_data"] for run in found)
    figure = draw(states, cells, synthetic=synthetic)
    rows = [
        each[list(DRAWN)].assign(cell=cell, protocol=protocol)
        for (cell, protocol), each in sorted(states.items())
    ]
    whole = pd.concat(rows).to_csv(
        index=False, lineterminator="\n", float_format="%.6g"
    )
    kept.parent.mkdir(parents=True, exist_ok=True)
    put(kept, whole)
    put(kept.with_suffix(".md"), at_energy.markdown(read(kept)))
    put(
        folder / f"{COSTS}.png",
        lambda path: figure.savefig(path, format="png", dpi=200),
    )


def _before(kept: pathlib.Path, states: curves.Curves) -> curves.Curves:
    """Curves of comparisons that are not at hand, if they can share the picture.

    Those under other constants of the grid have no axis in common with what was made
    now, which is what counts.
    """
    if not kept.exists():
        return {}
    made = {cell for cell, _ in states}
    found = {key: each for key, each in read(kept).items() if key[0] not in made}
    try:
        if found:
            grams_per_joule(states | found)
    except ValueError:
        return {}
    return found


def read(path: pathlib.Path) -> curves.Curves:
    """Reads the curves that `write` has kept, but for those that are drawn no more."""
    found = pd.read_csv(path).groupby(["cell", "protocol"])
    return {
        (str(cell), str(protocol)): rows[list(DRAWN)].reset_index(drop=True)
        for (cell, protocol), rows in found
        if cell in CELLS and protocol in PROTOCOLS
    }


def mean_curves(found: Sequence[Run]) -> curves.Curves:
    """Mean curves over seeds, by comparison and protocol; see `curves.curve`."""
    seeds: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for run in found:
        name = run.summary["experiment"].removesuffix("_smoke")
        cell, _, protocol = name.rpartition(".")
        if cell in CELLS:
            seeds.setdefault((cell, protocol), []).append(curves.curve(run))
    return {
        key: pd.concat(each).groupby("round", as_index=False).mean()
        for key, each in seeds.items()
    }


def draw(
    states: curves.Curves,
    cells: Sequence[str],
    *,
    synthetic: bool = False,
) -> Figure:
    """Draws the panels; the error on a log axis, since it tells good nets apart.

    Args:
        states: from `mean_curves` or `read`.
        cells: the comparisons, from top to bottom.
        synthetic: whether the numbers show nothing.

    Raises:
        ValueError: the grams are not the joules times one constant, so that there is
            no common axis.
    """
    grams = grams_per_joule(states)
    height_in = ROW_IN * len(cells) + LEGEND_IN
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    warning = "SYNTHETIC DATA\n" if synthetic else ""
    title = "Accuracy on seen labels against what training has cost (modelled)"
    figure.suptitle(warning + title, fontsize="medium")
    panels = figure.subplots(len(cells), squeeze=False).ravel()
    for axes, cell in zip(panels, cells, strict=True):
        for protocol in PROTOCOLS:
            if (cell, protocol) in states:
                _line(axes, states[cell, protocol], protocol)
        dataset, alpha = CELLS[cell]
        axes.set_ylabel(f"{dataset}, alpha {alpha:g}\ntest accuracy (%)")
        _finish(axes, grams)
    handles = {line.get_label(): line for axes in panels for line in axes.get_lines()}
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=4, frameon=False
    )
    return figure


def grams_per_joule(states: curves.Curves) -> float:
    """The one intensity behind all curves: every place is on the same grid."""
    found = [
        float(each["carbon_g"].iloc[-1] / each["energy_j"].iloc[-1])
        for each in states.values()
    ]
    if max(found) > min(found) * (1 + _ONE_INTENSITY):
        raise ValueError(
            f"runs have from {min(found):g} to {max(found):g} g a joule; give all of "
            "them one energy.country, so that joules and grams share an axis"
        )
    return found[0]


def _line(axes: Axes, states: pd.DataFrame, protocol: str) -> None:
    """Draws one protocol: dashed where it is out of the ranking, ours thick."""
    number = list(PROTOCOLS).index(protocol)
    shown = states[states["energy_j"] > 0]  # a log axis has no zero
    axes.plot(
        shown["energy_j"],
        100 * (1 - shown["end_seen"]),
        color="k" if protocol == OURS else COLORS[number % len(COLORS)],
        marker=MARKERS[number % len(MARKERS)],
        markersize=6,
        markevery=[-1],
        linestyle="--" if PROTOCOLS[protocol].out else "-",
        linewidth=2.5 if protocol == OURS else 1.2,
        zorder=3 if protocol == OURS else 2,
        label=protocol,
    )


def _finish(axes: Axes, grams: float) -> None:
    """Sets the axes: joules below, grams above, accuracy at the side."""
    axes.set_xscale("log")

    def to_grams(joules: Any) -> Any:
        return joules * grams

    def to_joules(mass: Any) -> Any:
        return mass / grams

    above = axes.secondary_xaxis("top", functions=(to_grams, to_joules))
    for axis, unit in ((axes.xaxis, "J"), (above.xaxis, "g")):
        axis.set_major_locator(LogLocator(numticks=8))
        axis.set_major_formatter(EngFormatter(unit))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("energy so far; above: CO2e so far")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(min(high, 1.2 * ERRORS[0]), low)  # the best at the top
    axes.yaxis.set_major_locator(FixedLocator(ERRORS))
    axes.yaxis.set_major_formatter(lambda error, position: f"{100 - error:g}")
    axes.yaxis.set_minor_locator(FixedLocator([]))
    axes.grid(color="#DDDDDD")
