"""What computed the numbers of a table: which code, on which processor."""

import functools
import pathlib
import platform

from ecogen_jax.run import writer


@functools.cache
def commit() -> str:
    """The commit of this code, with -dirty for changes; "" outside a checkout.

    It is that of the first call: what a command writes is no change of its code.
    """
    found, dirty = writer.git_state()
    return f"{found or ''}{'-dirty' if dirty else ''}"


def processor(info: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> str:
    """The name of the processor.

    Args:
        info: where Linux tells it; elsewhere it is what Python knows.
    """
    lines = info.read_text().splitlines() if info.exists() else []
    named = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    return next(named, "").strip() or platform.processor() or platform.machine()
