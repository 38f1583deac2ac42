"""The cost of a run: sourced constants, a FLOP meter, the ledger of joules and grams.

Only counting FLOPs and drawing samples needs JAX, so reports can read constants and
ledgers without it.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecogen_jax.energy.program import Estimate


def estimate(
    fn: Callable[..., Any],
    *args: Any,
    device: str = "h100",
    country: str = "World",
    while_trips: int | Mapping[str, int] | None = None,
) -> "Estimate":
    """Predicts what one call of a JAX function costs, before it runs.

    Args:
        fn: any function that JAX can trace.
        *args: its arguments; `jax.ShapeDtypeStruct` will do for arrays.
        device: a device of ``tables/devices.csv`` with speed and power.
        country: a row of ``tables/grid.csv``.
        while_trips: most trips of ``while`` loops that do not show theirs: one number
            for all, or a number for each by the name of its body function. Values and
            high ends take all of them, low ends none.

    Returns:
        See `ecogen_jax.energy.program.Estimate`.
    """
    from ecogen_jax.energy import program

    return program.estimate(
        fn, *args, device=device, country=country, while_trips=while_trips
    )
