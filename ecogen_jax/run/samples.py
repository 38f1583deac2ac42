"""Generated images kept for the report: a few of each class from every hop."""

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ecogen_jax import distributed
from ecogen_jax.relay.distillers.base import HopState
from ecogen_jax.run.checkpoint import CheckpointError
from ecogen_jax.types import PyTree

PER_CLASS = 4


@distributed.main_only
def add_samples(folder: Path, cycle: int, name: str, state: PyTree) -> None:
    """Adds the newest images of a hop's first party to `samples.npz`.

    For a reservoir bank, which does not know the age of images, it adds any of them.

    Args:
      folder: the run folder.
      cycle: number of the cycle.
      name: the stage; the entry is `<cycle>/<name>`, uint8
        `[classes x PER_CLASS, height, width, channels]` in order of the label.
      state: the stage's last state, on the host; where it is not of a hop, or the
        hop keeps no images, nothing is added.
    """
    if not isinstance(state, HopState) or not state.bank.written[0]:
        return
    file = folder / "samples.npz"
    samples: dict[str, Any] = {}
    try:
        if file.exists():
            with file.open("rb") as opened:
                samples = dict(np.load(opened))
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointError(
            f"{file} is damaged ({error}); delete it (the report will lack the images "
            "of earlier hops) and give the same command"
        ) from error
    samples[f"{cycle}/{name}"] = _newest(state)
    temporary = folder / "samples.tmp.npz"
    np.savez_compressed(temporary, **samples)
    os.replace(temporary, file)


def _newest(state: HopState) -> np.ndarray:
    images, labels = state.bank.images[0], state.bank.labels[0]
    written = int(state.bank.written[0])
    age = (written - 1 - np.arange(len(labels))) % len(labels)
    newest = np.argsort(age)[: min(written, len(labels))]
    chosen = []
    for label in np.unique(labels[newest]):
        chosen.append(newest[labels[newest] == label][:PER_CLASS])
    return images[np.concatenate(chosen)]
