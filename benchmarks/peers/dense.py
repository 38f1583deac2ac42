"""Linear layers with ReLU between them, and their gradients, in NumPy alone."""

import itertools

import numpy as np

from benchmarks import tasks


def gradients(params: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> list:
    """Of the mean cross-entropy by weights and biases, layer after layer.

    Args:
        params: weights and biases of a linear layer, or of two with ReLU between.
        x: `[batch, inputs]`.
        y: labels `[batch]`.
    """
    hidden = [x]
    for weights, biases in zip(params[:-2:2], params[1:-2:2], strict=True):
        hidden.append(np.maximum(hidden[-1] @ weights + biases, 0))
    logits = hidden[-1] @ params[-2] + params[-1]
    logits -= logits.max(axis=1, keepdims=True)
    error = np.exp(logits)
    error /= error.sum(axis=1, keepdims=True)
    error[np.arange(len(y)), y] -= 1
    error /= np.float32(len(y))
    found: list[np.ndarray] = []
    for layer in reversed(range(len(hidden))):
        found = [hidden[layer].T @ error, error.sum(axis=0), *found]
        if layer:
            error = (error @ params[2 * layer].T) * (hidden[layer] > 0)
    return found


def first(task: tasks.Task) -> list[np.ndarray]:
    """Weights and biases before the first round."""
    rng = np.random.default_rng(0)
    sizes = [int(np.prod(task.shape)), task.classes]
    if task.net == "mlp":
        sizes.insert(1, tasks.HIDDEN)
    params = []
    for inputs, outputs in itertools.pairwise(sizes):
        weights = np.sqrt(2 / inputs) * rng.standard_normal((inputs, outputs))
        params += [weights.astype(np.float32), np.zeros(outputs, np.float32)]
    return params
