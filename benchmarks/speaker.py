"""The worker's side of the benchmark: does its work in pieces, when it is asked to.

A worker is a process with one thing to time. It says that it is ready, waits for a
line on its standard input, does so many units of its work, and answers with a JSON
line: seconds of one unit by the wall clock and of this process's CPU time. So the suite
lets workers take turns, and those who wait use no core. What libraries print goes to
standard error. Nothing but the standard library: peers run this in their own
environments.
"""

import json
import os
import sys
import time
from importlib.metadata import version

SAMPLE_S = "ECOGEN_BENCHMARK_SAMPLE_S"
"""Environment variable: wall seconds that a sample shall take, in whole units."""


class Speaker:
    """Speaks for a worker; the worker calls `tick` after each unit of its work."""

    def __init__(self, *packages: str, work: float = 1.0, warmup: int = 3) -> None:
        """Says nothing yet; the first ticks are the warm-up.

        Args:
            *packages: whose versions are told.
            work: what a unit counts, such as its steps or FLOPs; seconds are divided
                by it.
            warmup: ticks before the worker is ready, the last of which is timed to
                choose how many units make a sample; 0 for a worker that does its work
                once, which is ready at once.
        """
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._about = {name: version(name) for name in packages}
        self._work, self._warmup = work, warmup
        self._units = self._left = 1
        self._wall = self._cpu = 0.0
        if not warmup:
            self._ready()

    def tick(self) -> None:
        """Ends a unit of work; returns when the next one is wanted."""
        if self._warmup:
            self._warm()
            return
        self._left -= 1
        if self._left:
            return
        units = self._units * self._work
        self._say(
            wall_s=(time.perf_counter() - self._wall) / units,
            cpu_s=(time.process_time() - self._cpu) / units,
        )
        self._wait()

    def _warm(self) -> None:
        now = time.perf_counter()
        self._warmup -= 1
        if self._warmup:
            self._wall = now
            return
        unit_s = max(now - self._wall, 1e-6)
        self._units = max(1, round(float(os.environ.get(SAMPLE_S, 1.0)) / unit_s))
        self._ready()

    def _ready(self) -> None:
        self._say(ready=True, units=self._units, about=self._about)
        self._wait()

    def _wait(self) -> None:
        """Waits to be asked; ends the process when nobody will ask any more."""
        if not sys.stdin.readline():
            self._out.close()
            # Not `sys.exit`, which would end only the thread that a library gave us.
            os._exit(0)
        self._left = self._units
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def _say(self, **message: object) -> None:
        print(json.dumps(message), file=self._out, flush=True)
