"""The plots of a run, legible on a phone and without colour vision."""

import contextlib
import functools
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from ecogen_jax.report import files, tables
from ecogen_jax.report.runs import Run

# Okabe and Ito, "Color Universal Design" (2008): told apart without colour vision.
COLORS = {
    "cloud": "#0072B2",
    "edge": "#D55E00",
    "end": "#009E73",
    "end_own": "#CC79A7",
    "end_unseen": "#E69F00",
}
MARKERS = {"cloud": "s", "edge": "D", "end": "o", "end_own": "^", "end_unseen": "v"}
# By cycle; cycle 0 is what comes before the first one.
STYLES = ("-.", "-", "--", ":")
# A page on a phone is about 4.8 inches wide at this font size.
WIDTH_IN = 4.8
IMAGES_PER_ROW = 10
# Above this ratio of largest to smallest, small values vanish on a linear axis.
LOG_RATIO = 30
MAX_NUMBERED_DEVICES = 20
MAX_BARS = 10
MAX_NUMBERED_CLASSES = 10
DAMAGED = (
    *(OSError, EOFError, LookupError, TypeError, ValueError),
    *(zipfile.BadZipFile, zlib.error),
)
# Light to dark, without shades that look blank.
SHADES = ListedColormap(colormaps["Blues"](np.linspace(0.25, 1, 256)))
# The foot of a log axis, in percent: one image in ten thousand.
SMALLEST_ERROR = 0.01


def write_all(run: Run) -> list[Path]:
    """Writes every plot that the run has data for.

    Args:
        run: a finished run.

    Returns:
        The files in `plots/`, in the order a reader wants them.
    """
    folder = run.path / "plots"
    folder.mkdir(exist_ok=True)
    written = []
    for name, draw in DRAWINGS.items():
        figure = draw(run)
        if figure is not None:
            written.append(folder / f"{name}.png")
            save = functools.partial(figure.savefig, dpi=200, format="png")
            files.put(written[-1], save)
    return written


def accuracy(run: Run) -> Figure:
    """Draws test accuracy by tier over the phases, beside local training alone."""
    figure, axes = _figure(run, "Test accuracy by tier", height_in=3.8)
    phases = tables.shown_phases(run.summary)
    places = range(len(phases))
    names = {name: tables.COLUMNS[name] for name in COLORS}  # more would not be legible
    for name, label in names.items():
        heights = [_percent(phase["accuracy"].get(name)) for phase in phases]
        if np.isnan(heights).all():
            continue
        axes.plot(
            places, heights, color=COLORS[name], marker=MARKERS[name], label=label
        )
    alone = run.summary["baselines"].get("local_only", {})
    for name in [name for name in names if alone.get(name) is not None]:
        label = f"{names[name]}: local only"
        height = _percent(alone[name])
        axes.axhline(height, color=COLORS[name], linestyle="--", label=label)
    _percent_axis(axes, "mean test accuracy (%)")
    axes.set_xticks(places, map(tables.phase_name, phases), rotation=45)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def samples(run: Run) -> Figure | None:
    """Draws generated images, one row a hop; None where the run made none."""
    file = run.path / "samples.npz"
    if not file.exists():
        return None
    with _whole(file), np.load(file) as arrays:
        rows = {name: arrays[name] for name in arrays}
    if not rows:
        return None
    size = (len(rows), 1)
    figure, panels = _panels(run, "Generated images by hop", size, row_height_in=0.72)
    for axes, (name, images) in zip(panels, rows.items(), strict=True):
        axes.imshow(_strip(images), cmap="gray", vmin=0, vmax=255)
        title = f"cycle {name.replace('/', ', ', 1)}"
        axes.set_title(title, fontsize="small", loc="left", pad=2)
        axes.set_axis_off()
    return figure


def hops(run: Run) -> Figure | None:
    """Draws validation error by round, a panel a hop; None where the run has no hop.

    On a log axis, since what tells good students apart is a fraction of a percent.
    Students are on up to 5,000 validation images, the line of their teachers on all.
    """
    found = run.summary.get("hops", [])
    stages = list(dict.fromkeys(hop["stage"] for hop in found))
    if not stages:
        return None
    size = (-(-len(stages) // 2), min(len(stages), 2))
    figure, panels = _panels(run, "Validation error by round of a hop", size, 1.7)
    figure.supylabel("error (%), log", fontsize="medium")
    lines: dict[str, Line2D] = {}
    for axes, stage in zip(panels, stages, strict=False):
        for hop in found:
            if hop["stage"] == stage:
                lines |= _hop_lines(axes, hop, run.metrics)
        axes.set_title(stage, fontsize="small")
        axes.set_xlabel("round" if stage in stages[-2:] else "")
    for axes in panels[len(stages) :]:
        axes.set_axis_off()
    figure.legend(
        lines.values(), lines.keys(), loc="outside lower center", ncols=2, frameon=False
    )
    return figure


def energy(run: Run) -> Figure:
    """Draws energy by tier and link, each with its interval."""
    costs = run.summary["ledger"]
    places = {tier: costs[tier] for tier in tables.TIERS}
    places |= {link: costs["link"][link] for link in tables.LINKS}
    kinds = ", ".join(sorted({cost["kind"] for cost in places.values()}))
    figure, axes = _figure(run, f"Energy by tier and link ({kinds})", height_in=3.2)
    for number, cost in enumerate(places.values()):
        _energy_row(axes, number, cost)
    spent = [cost["energy_j"] for cost in places.values() if cost["energy_j"] > 0]
    if spent and max(spent) > LOG_RATIO * min(spent):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
    axes.set_yticks(range(len(places)), list(places))
    axes.set_ylim(len(places) - 0.5, -0.7)
    axes.margins(x=0.15)
    axes.grid(axis="x", color="#DDDDDD")
    axes.xaxis.set_major_formatter(EngFormatter("J"))
    axes.set_xlabel("energy, with interval")
    return figure


def tornado(run: Run) -> Figure | None:
    """Draws what each constant does to the total carbon; None in an older run."""
    file = run.path / "uncertainty.json"
    if not file.exists():
        return None
    with _whole(file):
        found = json.loads(file.read_text())
        bars = found["inputs"][:MAX_BARS]
    height_in = 1.8 + 0.3 * len(bars)
    figure, axes = _figure(run, "What the total CO2e depends on", height_in)
    for number, bar in enumerate(bars):
        ends = bar["carbon_g"]
        axes.barh(number, ends["high"] - ends["low"], left=ends["low"], color="#56B4E9")
    best = found["carbon_g"]
    axes.axvline(best["value"], color="k")
    label = "90 % interval of the total"
    axes.axvspan(best["low"], best["high"], color="#DDDDDD", zorder=0, label=label)
    axes.use_sticky_edges = False  # else the widest bar touches the frame
    axes.margins(x=0.05)
    axes.set_yticks(range(len(bars)), [bar["name"] for bar in bars], fontsize="small")
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(EngFormatter("g"))
    axes.set_xlabel("location-based CO2e of the run, modelled")
    figure.legend(loc="outside lower center", frameon=False)
    return figure


def partition(run: Run) -> Figure | None:
    """Draws how many images of each class a device holds; None where none has any."""
    file = run.path / "partition.npz"
    if not file.exists():
        return None
    with _whole(file), np.load(file) as arrays:
        counts = arrays["label_counts"]
    if not counts.any():
        return None
    num_devices, num_classes = counts.shape
    height_in = min(9.0, 1.8 + 0.28 * num_devices)
    title = f"Private images by device and class\n{_partition_kind(run.config['data'])}"
    figure, axes = _figure(run, title, height_in)
    # Logarithmic, zeros not drawn: non-IID counts differ by orders of magnitude.
    scale = LogNorm(1, max(2, counts.max()))
    shown = axes.imshow(
        np.ma.masked_equal(counts, 0), cmap=SHADES, aspect="auto", norm=scale
    )
    axes.set_xlabel("class")
    axes.set_ylabel("end device")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator("auto", integer=True))
    if num_devices <= MAX_NUMBERED_DEVICES and num_classes <= MAX_NUMBERED_CLASSES:
        _number_cells(axes, counts)
    else:
        figure.colorbar(shown, ax=axes, label="images")
    return figure


def training(run: Run) -> Figure | None:
    """Draws validation accuracy by round, a panel a stage, a line a tier and cycle."""
    columns = [str(n) for n in run.metrics.filter(like="/validation_accuracy")]
    if not columns:
        return None
    logged = run.metrics.dropna(subset=columns, how="all").astype({"cycle": int})
    stages = list(logged["stage"].unique())
    size = (-(-len(stages) // 2), 2)
    figure, panels = _panels(run, "Validation accuracy by round", size, 1.3)
    figure.supylabel("accuracy (%)", fontsize="medium")
    lines: dict[str, Line2D] = {}
    for axes, stage in zip(panels, stages, strict=False):
        lines |= _training_panel(axes, logged[logged["stage"] == stage], columns)
        axes.set_title(stage, fontsize="small")
        axes.set_xlabel("round" if stage in stages[-2:] else "")
    for axes in panels[len(stages) :]:
        axes.set_axis_off()
    figure.legend(
        lines.values(), lines.keys(), loc="outside lower center", ncols=2, frameon=False
    )
    return figure


DRAWINGS: dict[str, Callable[[Run], Figure | None]] = {
    "accuracy": accuracy,
    "hops": hops,
    "samples": samples,
    "energy": energy,
    "tornado": tornado,
    "partition": partition,
    "training": training,
}


@contextlib.contextmanager
def _whole(file: Path) -> Iterator[None]:
    """Names a file that cannot be read because it was cut or changed."""
    try:
        yield
    except DAMAGED as error:
        raise ValueError(
            f"{file} is damaged ({error}); put it back, or delete it to do without"
        ) from error


def _figure(run: Run, title: str, height_in: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    axes = figure.subplots()
    axes.set_title(_title(run, title), fontsize="medium")
    return figure, axes


def _panels(
    run: Run, title: str, size: tuple[int, int], row_height_in: float
) -> tuple[Figure, list[Axes]]:
    height_in = 1.0 + row_height_in * size[0]
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    figure.suptitle(_title(run, title), fontsize="medium")
    return figure, list(figure.subplots(*size, sharey=True, squeeze=False).ravel())


def _title(run: Run, title: str) -> str:
    warning = "SYNTHETIC DATA\n" if run.summary["synthetic_data"] else ""
    return f"{warning}{title}\n{run.summary['experiment']}, {run.summary['dataset']}"


def _percent(fraction: float | int | None) -> float:
    return np.nan if fraction is None else 100 * fraction


def _percent_axis(axes: Axes, label: str) -> None:
    axes.set_ylim(0, 102)
    axes.set_ylabel(label)
    axes.grid(axis="y", color="#DDDDDD")


def _strip(images: np.ndarray) -> np.ndarray:
    """Joins images [n, height, width, channels] side by side.

    They lie in order of their label: spread over them, every class gets its turn.
    """
    chosen = np.linspace(0, len(images) - 1, IMAGES_PER_ROW).round().astype(int)
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    strip = np.concatenate(list(framed[chosen]), axis=1)
    return strip[..., 0] if strip.shape[-1] == 1 else strip


def _energy_row(axes: Axes, number: int, cost: dict[str, Any]) -> None:
    """Draws a dot with its interval: bars have no honest foot on a log axis."""
    joules = cost["energy_j"]
    place = (0.02, number) if joules == 0 else (joules, number)
    axes.annotate(
        tables.human(joules, "J"),
        place,
        xycoords=axes.get_yaxis_transform() if joules == 0 else "data",
        xytext=(0, 6),
        textcoords="offset points",
        ha="left" if joules == 0 else "center",
        fontsize="small",
    )
    if joules > 0:
        reach = [[joules - cost["energy_low_j"]], [cost["energy_high_j"] - joules]]
        axes.errorbar([joules], [number], xerr=reach, fmt="o", capsize=4, color="k")


def _partition_kind(data: dict[str, Any]) -> str:
    """Says how the images were shared out, with what the kind depends on."""
    kind = data.get("partition", "dirichlet")  # the only kind of older runs
    if kind == "iid":
        return kind
    if kind == "shards":
        return f"shards, {data['shards_per_client']} a device"
    if kind == "domain":
        kind = f"domain by edge: {', '.join(data['domains'])}"
    return f"{kind}, alpha {data['alpha']:g}"


def _number_cells(axes: Axes, counts: np.ndarray) -> None:
    middle = counts.max() ** 0.5  # on a logarithmic scale
    for (device, label), count in np.ndenumerate(counts):
        color = "white" if count > middle else "black"
        axes.text(
            label, device, f"{count}", ha="center", va="center", color=color, size=7
        )


def _training_panel(
    axes: Axes, logged: pd.DataFrame, columns: list[str]
) -> dict[str, Line2D]:
    """Draws one stage; returns the lines by their label."""
    lines = {}
    for column in columns:
        tier = column.split("/")[0]
        for cycle, rows in logged.dropna(subset=[column]).groupby("cycle"):
            label = f"{tier}, cycle {cycle}"
            (lines[label],) = axes.plot(
                rows["round"],
                100 * rows[column],
                color=COLORS.get(tier),
                linestyle=STYLES[int(str(cycle)) % len(STYLES)],
                marker=".",
            )
    _percent_axis(axes, "")
    axes.set_yticks((0, 50, 100))
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    return lines


def _hop_lines(
    axes: Axes, hop: dict[str, Any], metrics: pd.DataFrame
) -> dict[str, Line2D]:
    """Draws the students of a hop by round, and their teachers; lines by label."""
    column, cycle = f"{hop['tier']}/validation_accuracy", hop["cycle"]
    chosen = (metrics["stage"] == hop["stage"]) & (metrics["cycle"] == cycle)
    rows = metrics[chosen].dropna(subset=[column])
    accuracies = rows[column].to_list()
    style = STYLES[cycle % len(STYLES)]
    students, teachers = f"student, cycle {cycle}", f"teachers together, cycle {cycle}"
    lines = {}
    (lines[students],) = axes.plot(
        rows["round"], _error(accuracies), color="k", linestyle=style, marker="."
    )
    known = tables.together(hop, "validation")
    if known is not None:
        lines[teachers] = axes.axhline(
            _error([known])[0], color=COLORS["cloud"], linestyle=style
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", color="#DDDDDD")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    return lines


def _error(accuracies: Sequence[float]) -> list[float]:
    return [max(100 * (1 - value), SMALLEST_ERROR) for value in accuracies]
