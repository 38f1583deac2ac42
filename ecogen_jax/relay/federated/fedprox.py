"""FedProx: FedAvg with a proximal term to the received net on devices.

    min over w of  F_k(w) + mu / 2 ||w - w_received||^2

Li et al., "Federated optimization in heterogeneous networks", MLSys 2020, equation 2.
A straggler does only a share of its steps; its update still counts.
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
        # For layers that are not shared, there is no received net.
        held = {
            name: jax.tree.map(
                lambda g, w, w0: g + weight * (w - w0), grads[name], params[name], near
            )
            for name, near in received.items()
        }
        return {**grads, **held}

    return averaging(task, local_training(task.net, task.local, correct=correct))
