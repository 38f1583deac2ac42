"""Checkpoints of a whole run: the only file that uses orbax.

A checkpoint is one pytree of arrays and one JSON value, committed together by a rename:
a kill during a save leaves the previous checkpoint. If arrays are distributed over
several processes, each process writes its part; any number of processes can read it
back.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from ecogen_jax.types import PyTree


class Checkpoint(NamedTuple):
    """A checkpoint of a run.

    Attributes:
      step: number of the checkpoint.
      host: the JSON value that was saved with the arrays, not empty.
    """

    step: int
    host: dict[str, Any]


FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a full disk, and of a quota that is used up."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read or written; the message names its folder."""


class Checkpoints:
    """The checkpoints of one run; keeps the newest two. Use in a `with` block.

    Args:
      path: their folder.
      finished: whether the run is, so that no command goes on from the one before.
    """

    def __init__(self, path: Path, *, finished: bool = False) -> None:
        self._path, self._finished = path, finished
        keep = ocp.training.preservation_policies.LatestN(2)
        self._manager = ocp.training.Checkpointer(
            path.resolve(), preservation_policy=keep, cleanup_tmp_directories=True
        )

    def __enter__(self) -> "Checkpoints":
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Waits for a save in progress."""
        with self._room():
            self._manager.close()

    def latest(self) -> Checkpoint | None:
        """The newest whole checkpoint without its arrays, or None.

        Raises:
          CheckpointError: its JSON value cannot be read, which orbax does not tell.
        """
        newest = self._manager.latest
        if newest is None:
            return None
        try:
            host = self._manager.metadata(newest).custom_metadata
        except Exception as error:  # orbax raises many kinds of errors
            raise self._unreadable(newest.step, f"{error!r:.200}") from error
        if not host:
            raise self._unreadable(newest.step, "its metadata are damaged")
        return Checkpoint(newest.step, host)

    def save(self, step: int, arrays: PyTree, host: dict[str, Any]) -> None:
        """Starts to save and returns; the arrays are copied from the device first.

        Args:
          step: larger than that of every checkpoint before.
          arrays: pytree of arrays.
          host: JSON value, not empty.
        """
        # Without `force`, a save is dropped while another one is in progress.
        self.wait()
        here = jax.tree.map(_on_host, arrays)
        with self._room():
            self._manager.save_async(step, here, force=True, custom_metadata=host)

    def wait(self) -> None:
        """Returns when the last save is on disk.

        Raises:
          CheckpointError: the disk is full.
        """
        with self._room():
            self._manager.wait()

    @contextlib.contextmanager
    def _room(self) -> Iterator[None]:
        """Reports a full disk, for which orbax has several errors, in one line."""
        try:
            yield
        except (OSError, ValueError) as error:
            reasons = [r for r in map(os.strerror, FULL) if r in str(error)]
            if not reasons:
                raise
            raise CheckpointError(
                f"no space left for {self._path} ({reasons[0]}); make room and give "
                "the same command, which goes on from the last whole checkpoint"
            ) from error

    def restore(self, step: int, abstract: PyTree) -> PyTree:
        """Loads the arrays of a checkpoint.

        Args:
          step: its number.
          abstract: the tree that was saved, of arrays or `jax.ShapeDtypeStruct`.

        Returns:
          The same tree of numpy arrays.

        Raises:
          CheckpointError: it cannot be read.
        """
        template = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), abstract)
        try:
            return self._manager.load(step, template)
        except Exception as error:  # orbax raises many kinds of errors
            raise self._unreadable(step, f"{error!r:.200}") from error

    def _unreadable(self, step: int, reason: str) -> CheckpointError:
        remedy = (
            "delete that folder and give the same command, which goes on from the "
            "checkpoint before it, or from the start"
        )
        if self._finished:
            remedy = "put that folder back, or train the run again"
        return CheckpointError(
            f"checkpoint {self._path / str(step)} cannot be read ({reason}); {remedy}"
        )


def _on_host(leaf: Any) -> Any:
    """A numpy array, unless it is in parts; orbax copies both before it returns."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf
    return np.asarray(leaf)
