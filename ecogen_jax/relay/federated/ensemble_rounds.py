"""Rounds of a one-shot method: the ensemble of the devices is distilled, data-free.

Devices train as in FedAvg and send nets and label counts. The server starts from their
average and distils their ensemble into it by a hop with one of `relay.distillers`:

| protocol | distiller |
|---|---|
| `dense_rounds` | `dense`: Zhang et al., NeurIPS 2022, its multi-round form |
| `co_boosting_rounds` | `co_boosting`: Dai et al., ICLR 2024, published for one shot |

The project's own method in federated rounds generates features instead of images: see
`relay_rounds`.

From round to round the server keeps the bank of images; both methods have a new
generator for each batch. Everything that belongs to the teachers is reset, as the
teachers change in each round: moments, learned weights (which stay near equal weights
if a round has few steps), and the logits in the bank, which are recomputed with the new
teachers. The student's Adam and its cosine schedule are reset too. BatchNorm of the
student keeps the statistics of the average, since statistics of generated images would
be worse.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import struct

from ecogen_jax import keys
from ecogen_jax.nets.classifier import to_unit
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.bank import Bank
from ecogen_jax.relay.distillers.base import COLLAPSE, HopState
from ecogen_jax.relay.ensemble import Teachers, ensemble, log_priors
from ecogen_jax.relay.federated.base import Arrived, Method, Metrics, Task
from ecogen_jax.relay.federated.fedavg import Server, averaged, fedavg
from ecogen_jax.relay.federated.received import (
    nets_alone,
    shares,
    teachers,
    telling,
    told,
)
from ecogen_jax.relay.federated.trees import copies
from ecogen_jax.relay.learn import in_chunks
from ecogen_jax.types import Key, Leaf


@struct.dataclass
class Memory:
    """The state of the hop that the server keeps.

    Attributes:
      bank: the newest images.
      one_class_steps: see `HopState`.
    """

    bank: Bank
    one_class_steps: Leaf


def ensemble_rounds(task: Task) -> Method:
    """Builds the rounds; `task.distillation` says with which distiller."""
    assert task.maker is not None
    assert task.distillation is not None
    plain, maker, hop = telling(fedavg(task)), task.maker.net, task.distillation

    def begin(student: Variables, devices: Teachers, key: Key) -> HopState:
        made = maker.init(keys.stream(key, "generator"))
        return hop.distiller.init(student, made, devices, keys.stream(key, "hop"))

    def init(key: Key) -> Server:
        server = plain.init(key)
        first = begin(server.variables, _blank(task, server.variables), key)
        return replace(server, extra=_kept(first))

    def merge(server: Server, arrived: Arrived, key: Key) -> tuple[Server, Metrics]:
        nets, memory = nets_alone(arrived), server.extra
        after = averaged(task, server, nets, keys.stream(key, "aggregate"))
        weights = shares(arrived, hop.weigh(told(arrived)))
        devices = teachers(task, server.variables, nets, weights)
        if hop.generation.by_class:
            devices = replace(devices, log_priors=log_priors(told(arrived)))
        begun = replace(
            begin(after.variables, devices, key),
            bank=asked_anew(task, memory.bank, devices),
            one_class_steps=memory.one_class_steps,
        )
        state, found = jax.lax.scan(
            lambda state, key: hop.distiller.step(state, devices, key),
            begun,
            jax.random.split(keys.stream(key, "steps"), hop.steps),
        )
        taught = replace(after, variables=state.student, extra=_kept(state))
        del found[COLLAPSE]  # the last value is carried to the next round
        return taught, found | {COLLAPSE: state.one_class_steps.astype(jnp.float32)}

    return plain._replace(init=init, merge=merge, pools=0)


def _kept(state: HopState) -> Memory:
    return Memory(state.bank, state.one_class_steps)


def _blank(task: Task, variables: Variables) -> Teachers:
    """One copy of a net per active device: only the shapes matter."""
    weights = jnp.ones((task.active, task.num_classes))
    return Teachers((copies(variables, task.active),), weights)


def asked_anew(task: Task, bank: Bank, devices: Teachers) -> Bank:
    """The bank with the logits of new teachers, computed chunk by chunk.

    If the student's images are augmented, or its method computes logits itself, the
    stored logits are not used and not changed.
    """
    assert task.distillation is not None
    generation = task.distillation.generation
    if generation.augmentation.changes or not task.distillation.reads_logits:
        return bank

    def ask(images: jax.Array, labels: jax.Array) -> jax.Array:
        by_label = None if generation.by_class else labels
        return ensemble([task.net], devices, to_unit(images), by_label).logits

    return replace(bank, logits=in_chunks(ask, bank.images, bank.labels))
