"""Where the time of a round goes, by operation of its compiled program.

    python -m benchmarks.hotspots fedgen|S3b|many|small|ngf64 [--rounds 3] [--top 25]

One core, our side alone. XLA's profiler adds some time to each operation, so compare
operations with each other, and measure a change of the code by `benchmarks.run`. A loop
that XLA runs as one operation is listed as a whole; the parts of others are listed, and
the loop itself may be too.
"""

import argparse
import os
import pathlib
import re
import tempfile
from collections import Counter
from typing import NamedTuple

if __name__ == "__main__":  # before JAX counts the cores
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import jax
import pandas as pd
from rich.console import Console

from benchmarks import tasks
from benchmarks.hops import HOPS
from benchmarks.ours import federation, hop, rounds
from ecogen_jax import mesh
from ecogen_jax.report import tables
from ecogen_jax.run.command import positive

WARM_UP = 2
"""Rounds before those that are timed; the first compiles."""


class Operation(NamedTuple):
    """An operation of a compiled program.

    Attributes:
        result: type and shape; "several" of a loop.
        source: the JAX operation that it was made for, without the outer loops.
    """

    result: str
    source: str


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("fedgen", *tasks.TASKS, *HOPS))
    parser.add_argument("--rounds", type=positive, default=3, help="how many to time")
    parser.add_argument("--top", type=positive, default=25, help="operations to list")
    options = parser.parse_args()
    mesh.start(1)
    ours = _rounds(options.what)
    for _ in range(WARM_UP):
        ours.one()
    frame = profiled(ours, options.rounds)
    title = f"{options.what}: a round has {len(frame)} operations"
    shown = tables.from_frame(title, frame.head(options.top))
    Console().print(tables.to_rich(shown))


def _rounds(what: str) -> hop.Rounds | rounds.Rounds:
    if what in HOPS:
        size = HOPS[what]
        return hop.Rounds(hop.stage(size, size.steps), seeds=(0,))
    if what == "fedgen":
        return rounds.Rounds(federation.fedgen(federation.ALONE))
    return rounds.Rounds(federation.of_task(what, federation.ALONE))


def profiled(ours: hop.Rounds | rounds.Rounds, number: int) -> pd.DataFrame:
    """Times the operations of some rounds, see `hotspots`.

    Args:
        ours: compiled.
        number: of rounds.
    """
    settings = jax.profiler.ProfileOptions()
    settings.python_tracer_level = 0
    with tempfile.TemporaryDirectory(prefix="hotspots-") as folder:
        with jax.profiler.trace(folder, profiler_options=settings):
            for _ in range(number):
                ours.one()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(path))
        return hotspots(profile, operations(ours.program()), number)


def operations(program: str) -> dict[str, Operation]:
    """The operations of a compiled program by name.

    Args:
        program: its text, as `compiled.as_text()` gives it.
    """
    found = {}
    for line in program.splitlines():
        named = re.match(r"\s*(?:ROOT )?%([\w.-]+) = (\S+)", line)
        if named:
            source = re.search(r'op_name="([^"]*)"', line)
            inner = source[1].rsplit("closed_call/", 1)[-1] if source else ""
            several = named[2].startswith("(")
            result = "several" if several else named[2].split("{")[0]
            found[named[1]] = Operation(result, inner)
    return found


def hotspots(
    profile: jax.profiler.ProfileData, known: dict[str, Operation], number: int
) -> pd.DataFrame:
    """Times by operation, the longest first.

    Args:
        profile: of some rounds.
        known: the operations of their program.
        number: of rounds.

    Returns:
        A row for each operation that ran: `ms` and `calls` of a round, its name, and
        the fields of `Operation`.
    """
    spent: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for plane in profile.planes:
        for line in plane.lines:
            for event in line.events:
                if event.name in known:
                    spent[event.name] += event.duration_ns
                    calls[event.name] += 1
    rows = [
        (time / 1e6 / number, calls[name] / number, name, *known[name])
        for name, time in spent.most_common()
    ]
    return pd.DataFrame(rows, columns=["ms", "calls", "operation", *Operation._fields])


if __name__ == "__main__":
    main()
