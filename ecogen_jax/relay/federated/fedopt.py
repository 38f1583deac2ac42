"""FedAvgM and FedAdam: a server optimiser uses the mean change as its gradient.

    g = -sum_k n_k / n (w_k - w),    w <- server optimiser(w, g)

FedAvgM: Hsu et al., "Measuring the effects of non-identical data distribution for
federated visual classification", 2019, section 4.3. FedAdam: Reddi et al., "Adaptive
federated optimization", ICLR 2021, algorithm 2, with the bias correction of Adam.
Running statistics of BatchNorm are averaged, not optimised.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import optax

from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.federated.base import Arrived, Method, Metrics, Task
from ecogen_jax.relay.federated.fedavg import Server, averaged, fedavg
from ecogen_jax.relay.federated.sharing import sharing
from ecogen_jax.relay.optimizer import descend, server_adam, server_momentum
from ecogen_jax.types import Key, PyTree


def fedavgm(task: Task) -> Method:
    """Builds FedAvgM; its options are `learning_rate` and `momentum` of the server."""
    return _optimised(task, server_momentum(**task.options))


def fedadam(task: Task) -> Method:
    """Builds FedAdam; its options are `learning_rate`, `b1`, `b2` and `tau`.

    `tau` is added to the root of the second moment, which bounds the step where
    changes are small.
    """
    return _optimised(task, server_adam(**task.options))


def _optimised(task: Task, tx: optax.GradientTransformation) -> Method:
    plain, part = fedavg(task), sharing(task)

    def params(variables: Variables) -> PyTree:
        return part.shared(variables).params

    def init(key: Key) -> Server:
        server = plain.init(key)
        return replace(server, extra=tx.init(params(server.variables)))

    def merge(server: Server, arrived: Arrived, key: Key) -> tuple[Server, Metrics]:
        mean = averaged(task, server, arrived, key)
        before, after = params(server.variables), params(mean.variables)
        grads = jax.tree.map(jnp.subtract, before, after)
        moved, state = descend(tx, grads, server.extra, before)
        variables = Variables({**mean.variables.params, **moved}, mean.variables.stats)
        return replace(mean, variables=variables, extra=state), {}

    return plain._replace(init=init, merge=merge)
