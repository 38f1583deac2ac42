"""Optimisers with their schedules, and one update."""

import jax
import optax

from ecogen_jax.types import PyTree


def adam(learning_rate: float, *, total_steps: int) -> optax.GradientTransformation:
    """Adam whose learning rate falls by a cosine to 2 % over `total_steps`."""
    return optax.adam(optax.cosine_decay_schedule(learning_rate, total_steps, 0.02))


def clipped(
    tx: optax.GradientTransformation, most: float
) -> optax.GradientTransformation:
    """`tx` on gradients clipped to the global norm `most`; 0: no clipping."""
    return optax.chain(optax.clip_by_global_norm(most), tx) if most else tx


def descend(
    tx: optax.GradientTransformation, grads: PyTree, state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree]:
    """One step of `tx`: new parameters and new optimiser state."""
    # optax raises a float to an integer step count, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state


def sgd(momentum: float) -> optax.GradientTransformation:
    """Momentum of the gradient, without a learning rate: see `sgd_step`."""
    return optax.trace(momentum) if momentum else optax.identity()


def sgd_step(
    tx: optax.GradientTransformation,
    grads: PyTree,
    state: PyTree,
    params: PyTree,
    learning_rate: jax.Array,
) -> tuple[PyTree, PyTree]:
    """One step of SGD whose learning rate may be traced."""
    updates, state = tx.update(grads, state, params)
    return jax.tree.map(lambda p, u: p - learning_rate * u, params, updates), state


def stepwise_adam(
    learning_rate: float, *, decay: float, every: int, weight_decay: float
) -> optax.GradientTransformation:
    """Adam with L2 regularisation; its rate is multiplied by `decay` every few steps.

    Weight decay is added to the gradient, before Adam's moments, as in PyTorch's Adam,
    with which published recipes were tuned.
    """
    schedule = optax.exponential_decay(learning_rate, every, decay, staircase=True)
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(schedule))


def server_momentum(
    *, learning_rate: float, momentum: float
) -> optax.GradientTransformation:
    """SGD with momentum, for a server's mean change."""
    return optax.sgd(learning_rate, momentum)


def server_adam(
    *, learning_rate: float, b1: float, b2: float, tau: float
) -> optax.GradientTransformation:
    """Adam with a large `tau` for `epsilon`, for a server's mean change."""
    return optax.adam(learning_rate, b1, b2, tau)
