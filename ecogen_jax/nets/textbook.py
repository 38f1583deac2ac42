"""Whether layers are traced in their plain form or in one that is fast on a CPU."""

import jax

textbook = jax.make_user_context(False)
"""`with textbook(True):` traces the plain form, to count its operations: the matrix
products that replace convolutions on a CPU multiply by zeros as well."""


def is_plain() -> bool:
    """Whether layers are traced in their plain form, as they are on GPU and TPU."""
    return jax.default_backend() != "cpu" or textbook.value
