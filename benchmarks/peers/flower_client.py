"""A client in Flower: SGD in NumPy, with the least overhead in its workers."""

import functools

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from benchmarks import tasks
from benchmarks.peers.dense import gradients

app = ClientApp()


@functools.cache
def samples(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Flat samples and labels of all clients; made once in each worker."""
    images, labels = tasks.data(tasks.TASKS[name])
    return tasks.as_floats(images).reshape(*labels.shape, -1), labels


@app.train()
def train(message: Message, context: Context) -> Message:
    """Trains what the server sent, and sends it back."""
    name = str(message.content["config"]["task"])
    x, y = (array[int(context.node_config["partition-id"])] for array in samples(name))
    params = [array.copy() for array in message.content["arrays"].to_numpy_ndarrays()]
    task = tasks.TASKS[name]
    order = np.random.default_rng().permutation(len(y))
    for batch in order.reshape(task.steps, task.batch):
        found = gradients(params, x[batch], y[batch])
        for array, gradient in zip(params, found, strict=True):
            array -= tasks.LEARNING_RATE * gradient
    content = RecordDict(
        {
            "arrays": ArrayRecord(params),
            "metrics": MetricRecord({"num-examples": len(y)}),
        }
    )
    return Message(content=content, reply_to=message)
