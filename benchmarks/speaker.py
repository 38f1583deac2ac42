"""The worker's side of the benchmark: does its work in pieces, on request.

A worker is a process that times one kind of work. It reports that it is ready, waits
for a line on its standard input, does a number of units of its work, and answers with a
JSON line: seconds per unit, by the wall clock and by this process's CPU time. So the
suite can let workers take turns, and waiting workers use no core. Output of libraries
goes to standard error. Only the standard library is imported, since peers run this in
their own environments.
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
            *packages: packages whose versions are reported.
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
        """Waits for a request; ends the process at the end of the input."""
        if not sys.stdin.readline():
            self._out.close()
            # Not `sys.exit`, which would end only the current thread of a library.
            os._exit(0)
        self._left = self._units
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def _say(self, **message: object) -> None:
        print(json.dumps(message), file=self._out, flush=True)
