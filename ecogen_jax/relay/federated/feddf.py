"""FedDF: the server distils the devices into their average, on unlabelled real images.

NOT DATA-FREE: the server has images of the task, here the public half without its
labels. It is meant as an upper reference for methods without images.

    w <- FedAvg(w)
    w minimises  KL(softmax(mean_k t_k(x)) || softmax(s_w(x)))    x of the proxy set

with the nets `t_k` of the round's devices in inference mode and the student in training
mode. Lin et al., "Ensemble distillation for robust model fusion in federated learning",
NeurIPS 2020, algorithm 1 (AVGLOGITS): Adam with a cosine schedule that is reset in each
round. The paper stops early on a validation set; here a round has a fixed number of
steps.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp

from ecogen_jax import keys, losses
from ecogen_jax.nets.classifier import to_unit
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.ensemble import Teachers, ensemble
from ecogen_jax.relay.federated.base import Arrived, Method, Metrics, Task
from ecogen_jax.relay.federated.fedavg import Server, averaged, fedavg
from ecogen_jax.relay.federated.received import shares, teachers
from ecogen_jax.relay.optimizer import adam, descend
from ecogen_jax.types import Key, PyTree

TEMPERATURE = 1.0


def feddf(task: Task) -> Method:
    """Builds FedDF; its options are those of the config's section `feddf`.

    Raises:
      ValueError: there are no proxy images.
    """
    if not len(task.proxy):
        raise ValueError("feddf has no proxy images: raise data.public_fraction")
    plain, study = fedavg(task), _study(task)

    def merge(server: Server, arrived: Arrived, key: Key) -> tuple[Server, Metrics]:
        after = averaged(task, server, arrived, keys.stream(key, "aggregate"))
        alike = jnp.ones((task.active, task.num_classes))
        ensembled = teachers(task, server.variables, arrived, shares(arrived, alike))
        student, loss = study(after.variables, ensembled, keys.stream(key, "proxy"))
        return replace(after, variables=student), {"distillation": loss}

    return plain._replace(merge=merge, pools=0)


def _study(
    task: Task,
) -> Callable[[Variables, Teachers, Key], tuple[Variables, jax.Array]]:
    """The student's steps of a round: its net, and the loss of each step."""
    size, steps = int(task.options["batch_size"]), int(task.options["steps"])
    tx = adam(task.options["learning_rate"], total_steps=steps)

    def study(
        student: Variables, ensembled: Teachers, key: Key
    ) -> tuple[Variables, jax.Array]:
        proxy = jnp.asarray(task.proxy)

        def objective(
            params: PyTree, stats: PyTree, images: jax.Array, target: jax.Array
        ) -> tuple[jax.Array, PyTree]:
            output = task.net.apply(Variables(params, stats), images, train=True)
            loss = losses.distillation(target, output.value, temperature=TEMPERATURE)
            return loss, output.stats

        def step(
            state: tuple[Variables, PyTree], key: Key
        ) -> tuple[tuple[Variables, PyTree], jax.Array]:
            before, optimizer = state
            images = to_unit(proxy[jax.random.randint(key, (size,), 0, len(proxy))])
            target = ensemble([task.net], ensembled, images).logits
            (loss, stats), grads = jax.value_and_grad(objective, has_aux=True)(
                before.params, before.stats, images, target
            )
            params, optimizer = descend(tx, grads, optimizer, before.params)
            return (Variables(params, stats), optimizer), loss

        (student, _), found = jax.lax.scan(
            step, (student, tx.init(student.params)), jax.random.split(key, steps)
        )
        return student, found

    return study
