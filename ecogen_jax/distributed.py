"""Several processes that act as one, here or on many machines: `jax.distributed`.

All processes run the same script on the same config and hold the same host values. They
differ in their JAX devices (`mesh` distributes the clients over the devices of all
processes), and only process 0 writes. Without `start` there is one process, which is
the main one, and the functions below exchange nothing.
"""

import collections
import contextlib
import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import ParamSpec

import jax
import numpy as np
from jax.experimental import multihost_utils

from ecogen_jax.types import PyTree

PATIENCE_S = 30
"""Seconds of silence after which JAX takes a process for lost and ends the others, and
for which a process that ends waits for the others to end too."""

PORTS = range(1, 2**16)

P = ParamSpec("P")


class JoinError(RuntimeError):
    """The processes did not find each other, or do not fit together."""


def start(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Joins the processes of a run; call once, before JAX is used.

    Args:
      coordinator_address: `host:port` at which process 0 is reached by all.
      num_processes: how many there are.
      process_id: index of this process. Arguments that are None come from Slurm, Open
        MPI or Kubernetes, whichever started the process.

    Raises:
      JoinError: the address has another form, JAX does not recognise what started the
        process, or not all processes have joined.
    """
    if coordinator_address is not None:
        _check_address(coordinator_address)
    # The service would catch SIGTERM and leave the process running. A run saves
    # checkpoints, so it may simply be ended.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=PATIENCE_S,
            shutdown_timeout_seconds=PATIENCE_S,
        )
    except (RuntimeError, ValueError) as error:
        raise JoinError(
            f"the processes of the run could not be joined: {error} Start all of them "
            "by Slurm, Open MPI or Kubernetes, or give each --coordinator_address, "
            "--num_processes and --process_id"
        ) from error


def _check_address(address: str) -> None:
    """Refuses addresses on which JAX would fail silently or end the process."""
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdecimal() and int(port) in PORTS):
        raise JoinError(
            f"--coordinator_address is {address!r}: allowed is HOST:PORT, at which "
            f"process 0 is reached by all, with a port from {PORTS[0]} to {PORTS[-1]}, "
            "such as 10.0.0.1:1234"
        )


def finish() -> None:
    """Waits until all processes have come here, and disconnects them."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("the end of the run")
        jax.distributed.shutdown()


def is_main() -> bool:
    """Whether this is process 0, which alone writes and prints."""
    return jax.process_index() == 0


def main_only(write: Callable[P, None]) -> Callable[P, None]:
    """Makes a function that writes run in process 0 only."""

    @functools.wraps(write)
    def wrapped(*arguments: P.args, **options: P.kwargs) -> None:
        if is_main():
            write(*arguments, **options)

    return wrapped


def from_main(tree: PyTree) -> PyTree:
    """The numpy arrays of process 0 in all processes, which have the same shapes."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.broadcast_one_to_all(tree)


def largest(number: int) -> int:
    """The largest of the numbers of all processes."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())


def text_from_main(text: str) -> str:
    """The text of process 0 in all processes; the text of the others is ignored."""
    told = np.frombuffer(text.encode(), np.uint8)
    size = int(from_main(np.int32(told.size)))
    padded = np.resize(told, size)
    return from_main(padded).tobytes().decode()


def check_everywhere(fits: bool, message: str) -> None:
    """Stops all processes if a condition does not hold in one of them.

    Args:
      fits: whether it holds in this process.
      message: what is wrong and what to do.

    Raises:
      JoinError: with the message and the processes, in each process.
    """
    each = multihost_utils.process_allgather(np.array([fits]), tiled=True)
    if not each.all():
        numbers = ", ".join(map(str, np.flatnonzero(~each)))
        raise JoinError(f"{message} (process {numbers} of {each.size})")


def check_devices() -> None:
    """Stops all processes if they have different numbers of JAX devices.

    Every process counts for itself: an exchange would need equal numbers.

    Raises:
      JoinError: with the numbers, in each process.
    """
    counts = collections.Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        each = ", ".join(f"process {p} has {n}" for p, n in sorted(counts.items()))
        raise JoinError(
            f"the processes differ in their numbers of JAX devices ({each}): start all "
            "with the same config and, on accelerators, give each as many of them"
        )


@contextlib.contextmanager
def ending_at_once(*foreseen: type[Exception]) -> Iterator[None]:
    """Ends this process when an error stops it while others may be waiting for it.

    An orderly end would wait for the other processes, which wait in an exchange that
    this process has left. JAX ends them when they notice that it is missing.

    Args:
      *foreseen: errors that all processes raise alike; they are passed on.

    Yields:
      Nothing.
    """
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1 or isinstance(error, foreseen):
            raise
        _end(error)


def _end(error: Exception) -> None:
    traceback.print_exc()
    print(
        f"error: process {jax.process_index()} of {jax.process_count()} stopped: "
        f"{error}\nIf it lost the connection, another process has died, and its own "
        "output says why. The same command takes the run up at its last "
        "checkpoint.",
        file=sys.stderr,
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
