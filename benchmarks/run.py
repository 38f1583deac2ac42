"""Times our code and its peers, and writes a table for each part and a plot.

    python -m benchmarks.run [--only S1,S3a.fedjax] [--out benchmarks/results]

Workers take turns, A B A B, each warmed up and compiled before; a row has medians and
the median ratio of neighbouring turns. Takes 40 minutes on an idle machine; on a busy
one the numbers are meaningless. `python -m benchmarks.peers install` installs the
peers; a missing or failing peer gives a row that says so, and so does a missing GPU for
the rows about one. `--smoke` only checks that everything runs: its numbers are
meaningless and are not judged.
"""

import argparse
import functools
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.console import Console

from benchmarks import output, rows
from benchmarks.cases import GROUPS, Group
from benchmarks.workers import ROOT, Turns, take_turns
from ecogen_jax.report import tables
from ecogen_jax.run.command import positive
from papers_repro.origin import commit, processor

SAMPLE_S, SMOKE_S = 1.0, 0.0
SMOKE = "SMOKE: one short turn each; these numbers show nothing."
NO_GPU = "needs a GPU, and JAX finds none on this machine"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit code is 1 if some row that could run has not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="ID,ID", help="rows, or parts")
    parser.add_argument(
        "--out", type=pathlib.Path, default=ROOT / "benchmarks" / "results"
    )
    parser.add_argument(
        "--repeats", type=positive, default=7, help="default: %(default)s"
    )
    parser.add_argument("--smoke", action="store_true", help="to a temporary folder")
    options = parser.parse_args(arguments)
    try:
        bars = chosen(rows.read(), [id for id in options.only.split(",") if id])
        if not options.smoke:
            output.prepare(options.out, *_files(bars))
            rows.read_tables(options.out)
    except ValueError as error:
        parser.error(str(error))
    if not options.smoke:
        return run(bars, options.out, options.repeats, SAMPLE_S)
    with tempfile.TemporaryDirectory(prefix="benchmark-smoke-") as folder:
        return run(bars, pathlib.Path(folder), 1, SMOKE_S, smoke=True)


def chosen(bars: pd.DataFrame, only: Sequence[str]) -> pd.DataFrame:
    """The tables that have a row of the given ids, or of whole parts of ids.

    Raises:
        ValueError: there is no such row.
    """
    if not only:
        return bars
    parts = {id: [id == o or id.startswith(f"{o}.") for o in only] for id in bars["id"]}
    for position, name in enumerate(only):
        if not any(found[position] for found in parts.values()):
            raise ValueError(f"no rows {name!r}; there are {', '.join(bars['id'])}")
    wanted = bars["group"][[any(parts[id]) for id in bars["id"]]]
    return bars[bars["group"].isin(wanted)]


def run(
    bars: pd.DataFrame,
    folder: pathlib.Path,
    repeats: int,
    sample_s: float,
    *,
    smoke: bool = False,
) -> int:
    """Times the groups of some bars one after another, and writes as it goes.

    Args:
        bars: rows of `rows.read`.
        folder: for tables and plot; the other rows of a table stay as they are.
        repeats: turns of each group, at most.
        sample_s: wall seconds of a sample.
        smoke: whether the numbers are meaningless, so that no verdict is printed.
    """
    console, finished = Console(), True
    if smoke:
        console.print(SMOKE)
    for name in dict.fromkeys(bars["group"]):
        group, asked = GROUPS[name], bars[bars["group"] == name]
        turns = Turns(
            repeats=min(repeats, group.most),
            clock=group.clock,
            cores=min(group.cores, len(os.sched_getaffinity(0))),
            sample_s=sample_s,
            logs=ROOT / ".cache" / "benchmarks" / "logs" / name,
            anew=1 if smoke else group.anew,
        )
        with console.status(f"{name}: {', '.join(w.name for w in group.workers)}"):
            judged = _judged(asked.to_dict("records"), group, turns)
        finished &= all(
            row["verdict"] != "not run" or row["reason"] == NO_GPU for row in judged
        )
        table = _table(name)
        rows.write(table, _merged(judged, folder / f"{table}.csv"), folder)
        frame = pd.DataFrame(judged).reindex(columns=list(rows.COLUMNS))
        console.print(tables.to_rich(tables.from_frame(name, _short(frame, smoke))))
        for row in judged:
            if row.get("reason"):
                console.print(f"{row['id']} {row['reason']}", style="red", markup=False)
    rows.plot(folder)
    return int(not finished)


def _judged(
    asked: Sequence[dict[Any, Any]], group: Group, turns: Turns
) -> list[dict[str, Any]]:
    """The rows of some bars of one group."""
    if group.gpu and not gpu():
        return [rows.not_run(bar, NO_GPU) | _origin() for bar in asked]
    found = take_turns(group.workers, turns)
    about = _about(turns, group) | _origin()
    return [rows.judge(bar, found) | about for bar in asked]


@functools.cache
def gpu() -> str:
    """The name of the GPU that JAX computes on, or "".

    JAX is asked in a process of its own, which gives the GPU's memory back.
    """
    code = "import jax; d = jax.devices()[0]; print(d.platform, d.device_kind, sep=',')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    platform, _, name = done.stdout.strip().partition(",")
    return name if platform == "gpu" else ""


def _table(group: str) -> str:
    """The table that has the rows of a group."""
    return group.partition(".")[0]


def _files(bars: pd.DataFrame) -> set[str]:
    """What `run` writes."""
    names = {
        f"{_table(group)}.{end}" for group in bars["group"] for end in ("csv", "md")
    }
    return names | {"ratios.png"}


def _about(turns: Turns, group: Group) -> dict[str, Any]:
    """What all rows of a group share."""
    cores = f"{turns.cores} core" + "s" * (turns.cores > 1)
    lacking = "" if turns.cores == group.cores else f" of {group.cores} asked for"
    also = f"{gpu()}, " if group.gpu else ""
    return {
        "clock": group.clock.removesuffix("_s"),
        "cores": turns.cores,
        "machine": f"{also}{processor()}, {cores}{lacking}",
    }


def _origin() -> dict[str, Any]:
    command = shlex.join(["python", "-m", "benchmarks.run", *sys.argv[1:]])
    return {"command": command, "commit": commit()}


def _merged(
    judged: Sequence[dict[str, Any]], path: pathlib.Path
) -> list[dict[Any, Any]]:
    """The rows of a table once some have been timed anew, in the order of the bars."""
    known: dict[str, dict[Any, Any]] = {}
    if path.exists():
        before = rows.read_table(path).astype(object)
        before = before.where(before.notna(), None)
        known = {row["id"]: row for row in before.to_dict("records")}
    known |= {row["id"]: row for row in judged}
    return [known[id] for id in rows.read()["id"] if id in known]


def _short(frame: pd.DataFrame, smoke: bool) -> pd.DataFrame:
    """The columns for a terminal; a smoke says no more than what has not run."""
    text = rows.readable(frame)
    if smoke:
        judged = text["verdict"].isin(["met", "missed"])
        text["verdict"] = text["verdict"].mask(judged, tables.BLANK)
    return text[["id", "unit", "ours", "theirs", "ratio", "bar", "aim", "verdict"]]


if __name__ == "__main__":
    sys.exit(main())
