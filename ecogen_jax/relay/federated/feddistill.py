"""FedDistill: devices share mean logits by class instead of nets.

    s_k(c) = mean of the logits of device k over its images of class c
    s(c)   = sum_k n_k(c) s_k(c) / sum_k n_k(c)
    L_k    = CE(x, y) + w KL(softmax(s(y)) || softmax(f_k(x)))

Jeong et al., "Communication-efficient on-device machine learning: federated
distillation and augmentation under non-IID private data", 2018; with the divergence of
FedGen's comparison. The means are taken over the batches of local training, while the
net changes; a device's own means are part of the mean that it gets back. Every device
keeps its own net, and the cloud has none: a message is one number for each pair of
classes, and a count for each class. A class is used once some device has sent its mean.
"""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import struct

from ecogen_jax import losses
from ecogen_jax.nets.functional import Output, Variables
from ecogen_jax.relay.federated.alone import alone
from ecogen_jax.relay.federated.base import (
    Arrived,
    Member,
    Method,
    Metrics,
    Task,
    Trained,
)
from ecogen_jax.relay.federated.local import Loss, local_training
from ecogen_jax.types import Key, Leaf, PyTree


@struct.dataclass
class ByClass:
    """Mean logits by class.

    Attributes:
      logits: float32 `[classes, classes]`: of the images of each class.
      counts: float32 `[classes]`: images behind each row; a row of none is zero.
    """

    logits: Leaf
    counts: Leaf


@struct.dataclass
class Server:
    """The server's mean logits, and an untrained net."""

    net: Variables
    known: ByClass


def feddistill(task: Task) -> Method:
    """Builds FedDistill; its option is `weight`, the `w` of the loss."""
    plain, classes = alone(task), task.num_classes
    loss = functools.partial(_device_loss, task.options["weight"])
    train = local_training(task.net, task.local, loss=loss)

    def init(key: Key) -> Server:
        blank = ByClass(jnp.zeros((classes, classes)), jnp.zeros(classes))
        return Server(plain.init(key), blank)

    def send(server: Server, edge: Leaf) -> ByClass:
        del edge
        return server.known

    def device_train(
        received: ByClass, own: Variables, member: Member, key: Key
    ) -> Trained:
        found = train(own, member, received, key)
        sums = found.seen
        rows = sums.logits / jnp.maximum(sums.counts, 1.0)[:, None]
        facts = ByClass(rows, sums.counts)
        return Trained((), facts, found.variables, found.metrics)

    def merge(server: Server, arrived: Arrived, key: Key) -> tuple[Server, Metrics]:
        del key
        return replace(server, known=_heard(server.known, arrived)), {}

    return plain._replace(
        init=init,
        send=send,
        train=device_train,
        merge=merge,
        cloud=lambda server: server.net,
        edge=lambda server, index: server.net,
    )


def _device_loss(
    weight: float,
    params: PyTree,
    output: Output,
    labels: jax.Array,
    guide: ByClass,
    ready: PyTree,
) -> Loss:
    """`L_k` with the weight `w`; its logits are summed by class over the steps."""
    del params, ready
    told = (guide.counts[labels] > 0).astype(jnp.float32)
    divergence = losses.kl_divergence(guide.logits[labels], output.value, 1.0)
    terms = {
        "cross_entropy": losses.cross_entropy(output.value, labels),
        "distillation": weight * jnp.mean(told * divergence),
    }
    classes = output.value.shape[-1]
    asked = jax.nn.one_hot(labels, classes, dtype=jnp.float32)
    sums = jnp.matmul(asked.T, output.value, precision=jax.lax.Precision.HIGHEST)
    return Loss(terms, ByClass(sums, asked.sum(axis=0)))


def _heard(known: ByClass, arrived: Arrived) -> ByClass:
    """The mean of the messages; a class without new values keeps its old mean."""
    taken = arrived.weights > 0
    told = jnp.where(taken[:, None], arrived.facts.counts, 0.0)
    rows = jnp.where(taken[:, None, None], arrived.facts.logits, 0.0)
    counts = told.sum(axis=0)
    # As in `aggregate.mean`: a mean, which accelerators would round.
    highest = jax.lax.Precision.HIGHEST
    logits = jnp.einsum("kc,kcd->cd", told, rows, precision=highest)
    fresh = logits / jnp.maximum(counts, 1.0)[:, None]
    return ByClass(
        jnp.where((counts > 0)[:, None], fresh, known.logits),
        jnp.where(counts > 0, counts, known.counts),
    )
