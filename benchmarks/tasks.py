"""The federated tasks that peers share: sizes and generated data. NumPy at most."""

from typing import NamedTuple

import numpy as np


class Task(NamedTuple):
    """A federation in which every client takes part in every round.

    A client does one pass over its samples, in newly drawn batches, with plain SGD at
    `LEARNING_RATE`; the server takes the mean of all clients.

    Attributes:
        net: `logistic`, `mlp` (one hidden layer of 200 units) or `cnn` (two 3x3
            convolutions to 32 and 64 channels, 2x2 max pooling, a hidden layer of 128
            units: the CIFAR-10 recipe of pfl's benchmarks, without dropout).
        clients: how many.
        samples: of each client.
        batch: samples in a step.
        shape: height, width and channels of a sample.
        classes: number of labels.
    """

    net: str
    clients: int
    samples: int
    batch: int
    shape: tuple[int, int, int]
    classes: int

    @property
    def steps(self) -> int:
        """SGD steps of a client in a round."""
        return self.samples // self.batch


LEARNING_RATE = 0.1
HIDDEN = 200

TASKS = {
    "S3a": Task("logistic", 10, 60, 10, (28, 28, 1), 10),
    "S3b": Task("mlp", 50, 50, 10, (28, 28, 1), 62),
    "S3c": Task("logistic", 1000, 20, 20, (28, 28, 1), 10),
    "S3d": Task("cnn", 10, 50, 10, (32, 32, 3), 10),
    "many": Task("logistic", 10_000, 20, 20, (28, 28, 1), 10),
}


def data(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Generated samples of all clients, always the same.

    Returns:
        Images uint8 `[clients, samples, height, width, channels]`, and labels int32
        `[clients, samples]`.
    """
    rng = np.random.default_rng(0)
    size = (task.clients, task.samples)
    images = rng.integers(0, 256, (*size, *task.shape), np.uint8)
    return images, rng.integers(0, task.classes, size, np.int32)


def as_floats(images: np.ndarray) -> np.ndarray:
    """Images in [0, 1]; peers get them as floats from the start, to their advantage."""
    return images.astype(np.float32) / np.float32(255)
