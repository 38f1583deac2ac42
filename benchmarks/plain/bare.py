"""The update of a federation without anything else: a scan over clients and steps.

    python -m benchmarks.plain.bare TASK

Our round over this one is the overhead of the framework. The data are on the JAX device
from the start; there are no messages, metrics, faults or client states. A small number
of steps is unrolled, as in ours: this is faster for both.
"""

import sys
from functools import partial

import jax
import jax.numpy as jnp

from benchmarks import nets, tasks
from benchmarks.speaker import Speaker
from ecogen_jax import losses, mesh
from ecogen_jax.nets.classifier import to_unit
from ecogen_jax.nets.functional import Net, Variables
from ecogen_jax.relay.federated.local import unrolled
from ecogen_jax.types import Key, PyTree


def main(name: str) -> None:
    """Works on a task for as long as it is asked to."""
    mesh.start(1)
    task = tasks.TASKS[name]
    net = nets.of_task(task)
    images, labels = map(jnp.asarray, tasks.data(task))
    run = jax.jit(partial(one_round, net, task), donate_argnums=0)
    params = net.init(jax.random.key(0)).params
    key, number = jax.random.key(1), 0
    speaker = Speaker("jax")
    while True:
        params = run(params, images, labels, jax.random.fold_in(key, number))
        jax.block_until_ready(params)
        number += 1
        speaker.tick()


def one_round(
    net: Net,
    task: tasks.Task,
    params: PyTree,
    images: jax.Array,
    labels: jax.Array,
    key: Key,
) -> PyTree:
    """The mean of all clients' nets after a pass over their samples.

    Args:
        net: of server and clients.
        task: its sizes.
        params: of the server.
        images: uint8 `[clients, samples, height, width, channels]`.
        labels: int32 `[clients, samples]`.
        key: of the orders of the samples.
    """

    def objective(params: PyTree, x: jax.Array, y: jax.Array) -> jax.Array:
        output = net.apply(Variables(params, {}), to_unit(x), train=True)
        return losses.cross_entropy(output.value, y)

    def client(total: PyTree, own: tuple[jax.Array, ...]) -> tuple[PyTree, None]:
        x, y, key = own
        order = jax.random.permutation(key, task.samples)

        def step(params: PyTree, index: jax.Array) -> tuple[PyTree, None]:
            grads = jax.grad(objective)(params, x[index], y[index])
            moved = jax.tree.map(
                lambda p, g: p - tasks.LEARNING_RATE * g, params, grads
            )
            return moved, None

        batches = order.reshape(task.steps, task.batch)
        unroll = unrolled(task.steps)
        after, _ = jax.lax.scan(step, params, batches, unroll=unroll)
        return jax.tree.map(jnp.add, total, after), None

    nothing = jax.tree.map(jnp.zeros_like, params)
    each_key = jax.random.split(key, task.clients)
    total, _ = jax.lax.scan(client, nothing, (images, labels, each_key))
    return jax.tree.map(lambda leaf: leaf / task.clients, total)


if __name__ == "__main__":
    main(sys.argv[1])
