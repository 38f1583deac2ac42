"""The time of our programs with compilation: done once by each process.

    python -m benchmarks.ours.start step small|fedgen
    python -m benchmarks.ours.start seeds FIRST LAST

`step` goes from the first jitted call to the end of the first step: of a hop, or of a
federation, where it is a round. `seeds` runs a short hop, from its first jitted call to
its end, for a range of seeds in one program. Imports are over by then.
"""

import sys
from collections.abc import Callable

from benchmarks.hops import HOPS
from benchmarks.ours import federation, hop, rounds
from benchmarks.speaker import Speaker
from ecogen_jax import mesh

STEPS, ROUNDS = 40, 2
"""Of the short hop: two rounds of the hop A2, which has thirty."""


def main(what: str, *arguments: str) -> None:
    """Does its work once, when it is asked to."""
    mesh.start(1)
    work = step(*arguments) if what == "step" else seeds(*arguments)
    speaker = Speaker("jax", warmup=0)
    work()
    speaker.tick()


def step(name: str) -> Callable[[], object]:
    """The first step of a hop, or the first round of a federation."""
    if name == "fedgen":
        made = federation.fedgen(federation.ALONE)
        return lambda: rounds.Rounds(made).one()
    stage = hop.stage(HOPS[name], steps=1)
    return lambda: hop.Rounds(stage, seeds=(0,)).one()


def seeds(first: str, last: str) -> Callable[[], object]:
    """The short hop for seeds `first` to `last`, side by side."""
    stage = hop.stage(HOPS["small"], STEPS)
    chosen = tuple(range(int(first), int(last) + 1))

    def work() -> None:
        hops = hop.Rounds(stage, seeds=chosen)
        for _ in range(ROUNDS):
            hops.one()

    return work


if __name__ == "__main__":
    main(*sys.argv[1:])
