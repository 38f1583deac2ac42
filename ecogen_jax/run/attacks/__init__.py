"""Attacks of an eavesdropper on each type of message of a finished federation.

Only messages that the protocol of the run sends are attacked.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ecogen_jax.relay.attacks import intervals
from ecogen_jax.run.attacks import inversion, membership, overhear
from ecogen_jax.run.attacks.protection import NOTHING, Protection

__all__ = ["NOTHING", "Protection", "Sizes", "attack"]


class Sizes(NamedTuple):
    """The sizes of the attacks.

    Attributes:
      images: pairs of images of a device, at most.
      victims: pairs of updates that are inverted, for each number of images and steps.
      iterations: of the search for the images behind an update.
      resamples: of the bootstrap, for membership against a single device.
    """

    images: int = 500
    victims: int = 4
    iterations: int = 500
    resamples: int = intervals.RESAMPLES


def attack(
    path: str | Path, *, sizes: Sizes, protections: Sequence[Protection]
) -> pd.DataFrame:
    """Attacks the messages of a finished federation.

    Args:
      path: a run folder.
      sizes: of the attacks.
      protections: of updates; the updates are attacked once with each.

    Returns:
      A row for each message and attack. `auc` and `tpr` (membership), `psnr_db`, `mse`
      and `gain_db`, the difference to chance (inversion), with the ends of their
      intervals (`_low`, `_high`), and the chance level (`chance_`). The ends are NaN
      for a single pair of updates, which has no interval.

    Raises:
      FileNotFoundError: see `overhear.finished`.
      ValueError: the run is no federation, or its protocol sends nothing.
    """
    run = overhear.finished(path)
    rng = np.random.default_rng(run.config.seed)
    heard = overhear.overhear(run, run.late, rng, most=sizes.images)
    rows = [
        *membership.rows(run, heard, protections, rng, resamples=sizes.resamples),
        *inversion.rows(
            run,
            heard,
            protections,
            victims=sizes.victims,
            iterations=sizes.iterations,
        ),
    ]
    if not rows:
        name = run.config.protocol.name
        raise ValueError(f"{path}: {name} sends nothing that could be attacked")
    facts = {
        "protocol": run.config.protocol.name,
        "dataset": run.config.data.name,
        "synthetic_data": run.experiment.dataset.synthetic,
        "seed": run.config.seed,
    }
    return pd.DataFrame([facts | row for row in rows])
