"""FedProx: FedAvg whose devices are held near the net that they were sent.

    min over w of  F_k(w) + mu / 2 ||w - w_received||^2

Li et al., "Federated optimization in heterogeneous networks", MLSys 2020, equation 2.
A device that is short of time does a share of its steps, and counts all the same.
"""

import jax

from ecogen_jax.relay.federated.base import Method, Task
from ecogen_jax.relay.federated.fedavg import averaging
from ecogen_jax.relay.federated.local import local_training
from ecogen_jax.types import PyTree


def fedprox(task: Task) -> Method:
    """Builds FedProx; its option is `weight`, the `mu` of the equation."""
    weight = task.options["weight"]

    def correct(grads: PyTree, params: PyTree, received: PyTree) -> PyTree:
        # The layers that are not shared have nothing to be near to.
        held = {
            name: jax.tree.map(
                lambda g, w, w0: g + weight * (w - w0), grads[name], params[name], near
            )
            for name, near in received.items()
        }
        return {**grads, **held}

    return averaging(task, local_training(task.net, task.local, correct=correct))
