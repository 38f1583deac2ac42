"""Runs `scripts/train.py` and kills it with SIGKILL at a chosen point.

    python -m tests.killed_train POINT NUMBER [arguments of scripts/train.py]

`write` strikes while checkpoint NUMBER is written, `commit` when it is whole but not
yet renamed, and `line` between the log line NUMBER of this process and its checkpoint.
"""

import os
import signal
import sys
from unittest import mock

from ecogen_jax.run import writer
from scripts import train

TEMPORARY = ".orbax-checkpoint-tmp"


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_rename(ending: str) -> None:
    """Kills in the place of the rename of a path with this ending."""
    rename = os.rename

    def checked(source, target, **options):
        if str(source).endswith(ending):
            kill()
        rename(source, target, **options)

    mock.patch.object(os, "rename", checked).start()


def kill_after_line(number: int) -> None:
    append, lines = writer.append_metrics, []

    def counted(run, records):
        append(run, records)
        lines.extend(records)
        if len(lines) >= number:
            kill()

    mock.patch.object(writer, "append_metrics", counted).start()


def main() -> int:
    _, point, number, *arguments = sys.argv
    sys.argv = ["scripts/train.py", *arguments]
    if point == "line":
        kill_after_line(int(number))
    else:
        inner = f"/state{TEMPORARY}" if point == "write" else ""
        kill_at_rename(f"/{number}{TEMPORARY}{inner}")
    return train.main()


if __name__ == "__main__":
    sys.exit(main())
