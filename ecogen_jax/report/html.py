"""The page of a run: one self-contained file that is readable on a phone."""

import base64
import json
from pathlib import Path
from typing import Any

import jinja2

from ecogen_jax.report import energy, files, tables
from ecogen_jax.report.runs import Run

# The caption of each plot; a plot without an entry has none.
CAPTIONS = {
    "accuracy": "Test accuracy after each phase; dashed: local training alone.",
    "hops": "Students, on up to 5,000 validation images, against their teachers "
    "together on all of them (horizontal lines).",
    "samples": "What the generators made; no real image was used in a hop.",
    "energy": "Energy of the simulated devices and links, with its interval.",
    "tornado": "What each constant alone does to the total, over its whole interval.",
    "partition": "How the private images are shared by the end devices; blank: none.",
    "training": "Accuracy on the validation splits, on which everything is chosen.",
}


def write(run: Run) -> Path:
    """Writes `report.html` from the run and the plots in its folder.

    Args:
        run: a finished run; `plots.write_all` goes first.

    Returns:
        The page.
    """
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=folder, autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("template.html").render(
        summary=run.summary,
        manifest=run.manifest,
        config=json.dumps(run.config, indent=2),
        headline=_headline(run),
        tables=[
            tables.phases(run.summary),
            *([tables.hops(run.summary)] if run.summary.get("hops") else []),
            tables.ledger(run.summary),
            *energy.all_tables(run.summary),
        ],
        plots=[(name, text, _inline(run, name)) for name, text in _plots(run)],
    )
    path = run.path / "report.html"
    files.put(path, page)  # last, and whole: without it, a run is not reported yet
    return path


def _headline(run: Run) -> str:
    """Says in one line how much the relay gained for the tier that it was to teach."""
    hops = run.summary.get("hops", [])
    devices_learn = any(phase["phase"] == "local" for phase in run.summary["phases"])
    if hops and not devices_learn and hops[-1]["tier"] != "end":
        return _student_headline(hops[-1])
    last = run.summary["phases"][-1]
    end = last["accuracy"]["end"]
    if last["phase"] == "start":
        names = (
            f"{tier} {tables.percent(last['accuracy'][tier])} %"
            for tier in tables.TIERS
        )
        return f"Before any hop: {', '.join(names)}"
    text = f"End devices after {tables.phase_name(last)}: {tables.percent(end)} %"
    alone = run.summary["baselines"].get("local_only", {}).get("end")
    if alone is None:
        return text
    gain = 100 * (end - alone)
    return (
        f"{text}; local training alone {tables.percent(alone)} % ({gain:+.1f} points)"
    )


def _student_headline(hop: dict[str, Any]) -> str:
    teacher = hop["teacher"]
    return (
        f"{hop['tier'].capitalize()} after {hop['stage']}: "
        f"{tables.percent(hop['test'], digits=2)} %; its teachers, {teacher['tier']}, "
        f"{tables.percent(teacher['test'], digits=2)} % on average, "
        f"{tables.percent(tables.together(hop, 'test'), digits=2)} % together"
    )


def _plots(run: Run) -> list[tuple[str, str]]:
    """The plots that were written, with their captions."""
    folder = run.path / "plots"
    return [
        (name, text)
        for name, text in CAPTIONS.items()
        if (folder / f"{name}.png").exists()
    ]


def _inline(run: Run, name: str) -> str:
    content = (run.path / "plots" / f"{name}.png").read_bytes()
    return "data:image/png;base64," + base64.b64encode(content).decode()
