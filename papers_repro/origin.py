"""What numbers of a table were computed by."""

import functools

from ecogen_jax.run import writer


@functools.cache
def commit() -> str:
    """The commit of this code, with -dirty for changes; "" outside a checkout.

    It is that of the first call: what a command writes is no change of its code.
    """
    found, dirty = writer.git_state()
    return f"{found or ''}{'-dirty' if dirty else ''}"
