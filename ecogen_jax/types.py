"""Type aliases of arrays in function signatures; no logic."""

from typing import Any

import jaxtyping
from jaxtyping import Array, Float, Int

Labels = Int[Array, " batch"]
"""A batch of class indices in [0, num_classes)."""

Logits = Float[Array, "batch classes"]
"""Unnormalised class scores of a batch."""

Key = jaxtyping.Key[Array, ""]
"""One typed random key, as `jax.random.key` makes it."""

PyTree = jaxtyping.PyTree
"""Any nest of arrays: parameters, statistics, optimiser state."""

Leaf = Any
"""One array in a field of a state. Not checked, since JAX also builds a state of
shapes, of NumPy copies or of placeholders while it traces or maps over one."""
