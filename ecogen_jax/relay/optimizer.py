"""The one place where optax is called: the schedule, and one update."""

import jax
import optax

from ecogen_jax.types import PyTree


def adam(learning_rate: float, *, total_steps: int) -> optax.GradientTransformation:
    """Adam whose learning rate falls by a cosine to 2 % over `total_steps`."""
    return optax.adam(optax.cosine_decay_schedule(learning_rate, total_steps, 0.02))


def clipped(
    tx: optax.GradientTransformation, most: float
) -> optax.GradientTransformation:
    """`tx` on gradients whose norm over all leaves is cut to `most`; 0 cuts nothing."""
    return optax.chain(optax.clip_by_global_norm(most), tx) if most else tx


def descend(
    tx: optax.GradientTransformation, grads: PyTree, state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree]:
    """One step of `tx`: new parameters and new optimiser state."""
    # optax raises a float to an integer step count, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state
