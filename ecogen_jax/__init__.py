"""Data-free knowledge relay across cloud, edge and end, with its energy and carbon."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecogen_jax.run.results import LoadedRun


def load_run(path: str | Path) -> "LoadedRun":
    """Reads a finished run: its nets, parameters, config and summary.

    Args:
      path: a run folder, `runs/<experiment>/<time>-seed<k>`.

    Returns:
      See `ecogen_jax.run.results.LoadedRun`.
    """
    # JAX initialises its devices on first use, which an import must not force.
    from ecogen_jax.run import results

    return results.load_run(path)
