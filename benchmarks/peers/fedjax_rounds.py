"""FedAvg with fedjax: a unit is one round. Runs in its own Python environment.

It uses fedjax's jit backend, the default with one device, and its algorithm `fed_avg`,
as in its documentation. A round ends when the server's parameters are ready.
"""

import sys

import fedjax
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import tasks
from benchmarks.speaker import Speaker


def main(name: str) -> None:
    """Works on a task for as long as it is asked to."""
    task = tasks.TASKS[name]
    images, labels = tasks.data(task)
    inputs = tasks.as_floats(images)
    clients = [
        fedjax.ClientDataset({"x": x, "y": y})
        for x, y in zip(inputs, labels, strict=True)
    ]
    init, logits = NETS[task.net]

    def loss(params, batch, rng):
        del rng
        chosen = jax.nn.log_softmax(logits(params, batch["x"]))
        return -jnp.mean(jnp.take_along_axis(chosen, batch["y"][:, None], axis=1))

    algorithm = fedjax.algorithms.fed_avg.federated_averaging(
        jax.grad(loss),
        fedjax.optimizers.sgd(learning_rate=tasks.LEARNING_RATE),
        fedjax.optimizers.sgd(learning_rate=1.0),
        fedjax.ShuffleRepeatBatchHParams(batch_size=task.batch),
    )
    state = algorithm.init(init(np.random.default_rng(0), task))
    speaker = Speaker("fedjax", "jax")
    key = jax.random.PRNGKey(0)
    keys = list(jax.random.split(key, task.clients))
    while True:
        cohort = [(i, one, keys[i]) for i, one in enumerate(clients)]
        state, _ = algorithm.apply(state, cohort)
        jax.block_until_ready(state.params)
        speaker.tick()


def dense(rng, inputs, outputs):
    """Weights and biases of a linear layer."""
    scale = np.sqrt(2 / inputs)
    weights = scale * rng.standard_normal((inputs, outputs))
    return jnp.asarray(weights, jnp.float32), jnp.zeros(outputs)


def kernel(rng, inputs, outputs):
    """Weights and biases of a 3x3 convolution."""
    weights, biases = dense(rng, 9 * inputs, outputs)
    return weights.reshape(3, 3, inputs, outputs), biases


def logistic(rng, task):
    """Parameters of logistic regression."""
    return [dense(rng, int(np.prod(task.shape)), task.classes)]


def mlp(rng, task):
    """Parameters of one hidden layer and the classifier."""
    return [
        dense(rng, int(np.prod(task.shape)), tasks.HIDDEN),
        dense(rng, tasks.HIDDEN, task.classes),
    ]


def cnn(rng, task):
    """Parameters of two convolutions and two linear layers."""
    side = (task.shape[0] - 4) // 2
    return [
        kernel(rng, task.shape[2], 32),
        kernel(rng, 32, 64),
        dense(rng, side * side * 64, 128),
        dense(rng, 128, task.classes),
    ]


def dense_logits(params, x):
    """Linear layers with ReLU between them."""
    x = x.reshape(x.shape[0], -1)
    for weights, biases in params[:-1]:
        x = jax.nn.relu(x @ weights + biases)
    weights, biases = params[-1]
    return x @ weights + biases


def cnn_logits(params, x):
    """Convolutions with ReLU, pooling by strided slices, linear layers."""
    for weights, biases in params[:2]:
        x = jax.lax.conv_general_dilated(
            x, weights, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + biases)
    # Many times faster on a CPU than the library's `reduce_window`.
    corners = [x[:, i::2, j::2] for i in range(2) for j in range(2)]
    x = jnp.max(jnp.stack(corners), axis=0)
    return dense_logits(params[2:], x)


NETS = {
    "logistic": (logistic, dense_logits),
    "mlp": (mlp, dense_logits),
    "cnn": (cnn, cnn_logits),
}
"""By name: makes parameters, and logits of them and of samples."""


if __name__ == "__main__":
    main(sys.argv[1])
