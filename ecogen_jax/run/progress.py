"""Progress bars: one per stage, with its latest validation accuracy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from ecogen_jax import distributed
from ecogen_jax.relay.stage import Stage


@contextmanager
def progress() -> Iterator[Progress]:
    """The bars of a run; on a terminal they move, in a file each stage is a line."""
    console = Console(quiet=not distributed.is_main())
    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[accuracy]:>16}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        yield bars


@contextmanager
def stage_bar(
    bars: Progress, cycle: int, stage: Stage, done: int
) -> Iterator[Callable[[float | None], None]]:
    """The bar of one stage.

    Args:
      bars: from `progress`.
      cycle: number of the cycle.
      stage: what runs.
      done: rounds done before, in a resumed run.

    Yields:
      A function to call with the accuracy after each round, or None.
    """
    name = f"cycle {cycle}  {stage.name}" if cycle else stage.name
    task = bars.add_task(name, total=stage.rounds, completed=done, accuracy="compiling")
    last = ""

    def advance(accuracy: float | None) -> None:
        nonlocal last
        if accuracy is not None:
            last = f"{stage.student} {100 * accuracy:.1f} %"
        bars.update(task, advance=1, accuracy=last)

    yield advance
    if bars.disable:
        bars.console.print(f"{name}: {stage.rounds} rounds, validation {last}")
