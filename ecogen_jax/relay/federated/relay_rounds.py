"""Rounds of relay: a feature generator carries knowledge in both directions.

Down, devices train on their images and with the server's generator, as in `fedgen`, and
receive a second net, `v`, for inference. Up, they send the same as in `fedgen`. After
round `r` the server does three updates:

    D    = (1 - a) sum_S n_k / n_S d_k + a sum_K n_k / n_K d_k       a = r / (r + 10)
    w    <- w + s D
    L    = mean_i -sum_c p_ic log softmax(head_w(g_i))_c
    p_i  = sum_S w_k(y_i) softmax(head_k(g_i)),    g_i = G(u_i, y_i)
    v    <- e a v + (1 - e a) w

- Memory of changes `d_k`: those of the sampled devices S, and the last known changes of
  all devices K that have ever sent one. This reduces the variance from sampling (Gu et
  al., "Fast federated learning in the presence of arbitrary device unavailability",
  NeurIPS 2021). Old changes have a small weight at first, when the net still changes
  much.
- Server's step `s`: the mean of changes that differ is shorter than they are, so a step
  above 1 suits devices that differ (the server's learning rate of Reddi et al.,
  "Adaptive federated optimization", ICLR 2021). Running statistics of BatchNorm are
  averaged, so theirs is 1.
- Hop: averaging mixes the last layers of devices regardless of the classes that each of
  them knows. So the server's last layer is distilled from them on generated features,
  each device weighted for the classes that it has, by the shares `w_k(y)` of `fedgen`.
- EMA: devices use an exponential moving average `v` for inference, since the net itself
  is biased towards the last sampled devices.

Trials on validation (Fashion-MNIST, alpha 0.1, 60 rounds) are in
`papers_repro/fedgen/README.md`.
"""

import functools
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import struct

from ecogen_jax import keys
from ecogen_jax.nets.functional import Variables
from ecogen_jax.nets.latent import HEAD, head
from ecogen_jax.relay.federated.aggregate import mean
from ecogen_jax.relay.federated.base import Arrived, Method, Metrics, Task
from ecogen_jax.relay.federated.fedavg import Server
from ecogen_jax.relay.federated.fedgen import (
    Learner,
    drawn_inputs,
    feature_maker,
    fedgen,
    heads_of,
)
from ecogen_jax.relay.federated.fedgen import Sent as Lesson
from ecogen_jax.relay.federated.received import shares, told
from ecogen_jax.relay.federated.sharing import sharing
from ecogen_jax.relay.federated.trees import chosen
from ecogen_jax.relay.optimizer import adam, descend
from ecogen_jax.types import Key, Leaf, PyTree

SETTLING = 10.0
"""Rounds after which the past counts half as much as it will in the end."""


@struct.dataclass
class Sent:
    """What a device is sent.

    Attributes:
      lesson: what it trains from.
      served: the layers that it uses for inference.
    """

    lesson: Lesson
    served: Variables


@struct.dataclass
class Last:
    """The last known change of a device; of several, `[active, ...]`.

    Attributes:
      change: as it was sent; zeros before the first message.
      weight: float32, images of the device; 0 before its first message.
    """

    change: PyTree
    weight: Leaf


@struct.dataclass
class Past:
    """Sums over the last known changes of all devices.

    Attributes:
      change: `sum_K n_k d_k`.
      weight: float32 scalar, `n_K`.
    """

    change: PyTree
    weight: Leaf


@struct.dataclass
class Memory:
    """The state of the server besides the net that it trains.

    Attributes:
      learner: the generator in training.
      past: of all devices.
      served: the EMA of its nets.
      number: int32 scalar, rounds done.
    """

    learner: Learner
    past: Past
    served: Variables
    number: Leaf


def relay_rounds(task: Task) -> Method:
    """Builds the rounds; the options are those of the config's section."""
    plain, part, teach = fedgen(task), sharing(task), last_layer_hop(task)

    def bare(server: Server) -> Server:
        return replace(server, extra=server.extra.learner)

    def served(server: Server) -> Variables:
        return server.extra.served

    def init(key: Key) -> Server:
        server, nothing = plain.init(key), known(key)
        past = Past(nothing.change, nothing.weight)
        memory = Memory(server.extra, past, server.variables, jnp.int32(0))
        return replace(server, extra=memory)

    def known(key: Key) -> Last:
        sent = part.shared(plain.init(key).variables)
        return Last(jax.tree.map(jnp.zeros_like, sent), jnp.zeros(()))

    def send(server: Server, edge: Leaf) -> Sent:
        return Sent(plain.send(bare(server), edge), part.shared(served(server)))

    def merge(server: Server, arrived: Arrived, key: Key) -> tuple[Server, Metrics]:
        memory = server.extra
        learnt, metrics = plain.merge(bare(server), arrived, key)
        whole = of_all(memory.past, arrived)
        number = memory.number.astype(jnp.float32)
        past = number / (number + SETTLING)
        change = _longer(
            task.options["server_learning_rate"], _change(past, whole, arrived)
        )
        moved = part.gathered(server.variables, change, part.facts(learnt.variables))
        last, loss = teach(
            moved.params[HEAD],
            heads_of(server, arrived),
            shares(arrived, told(arrived)),
            learnt.extra.generator,
            keys.stream(key, "hop"),
        )
        net = Variables({**moved.params, HEAD: last}, moved.stats)
        average = _blended(past * task.options["ema"], memory.served, net)
        extra = Memory(learnt.extra, whole, average, memory.number + 1)
        metrics |= {"distillation": loss}
        return replace(server, variables=net, extra=extra), metrics

    return plain._replace(
        init=init,
        send=send,
        train=lambda sent, own, member, key: plain.train(sent.lesson, own, member, key),
        merge=merge,
        cloud=served,
        edge=lambda server, index: served(server),
        device=lambda sent, own: part.joined(sent.served, own),
        lesson=lambda sent: sent.lesson,
        begins=plain.edge,
        known=known,
        remember=remembered,
    )


def remembered(arrived: Arrived) -> Last:
    """The last known changes after a round; a refused device keeps its old one."""
    now = Last(arrived.updates, arrived.weights)
    return chosen(arrived.weights > 0, now, arrived.known)


def of_all(past: Past, arrived: Arrived) -> Past:
    """The sums after a round: those of its devices change.

    Adding up the changes of all devices in each round would need all of them. Sums of
    float32 numbers do not forget: an accepted change that is a million times as large
    as others leaves an error of some percent behind when its device sends a usual one.
    """

    def total(last: Last) -> Past:
        def leaf(values: jax.Array) -> jax.Array:
            # As in `aggregate.mean`: accelerators would round the factors.
            highest = jax.lax.Precision.HIGHEST
            return jnp.tensordot(last.weight, values, axes=1, precision=highest)

        return Past(jax.tree.map(leaf, last.change), jnp.sum(last.weight))

    before, after = total(arrived.known), total(remembered(arrived))
    return jax.tree.map(lambda a, b, c: a + (c - b), past, before, after)


def _longer(step: float, change: Variables) -> Variables:
    return replace(change, params=jax.tree.map(lambda a: step * a, change.params))


def _change(share: jax.Array, past: Past, arrived: Arrived) -> Variables:
    """`D`, see the top of this file."""
    images = jnp.where(past.weight > 0, past.weight, 1.0)
    old = jax.tree.map(lambda total: total / images, past.change)
    return _blended(share, old, mean(arrived.updates, arrived.weights))


def _blended(share: jax.Array, old: PyTree, new: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: share * a + (1.0 - share) * b, old, new)


def last_layer_hop(task: Task) -> Callable[..., tuple[PyTree, jax.Array]]:
    """The hop from the devices' last layers to the server's, on generated features.

    Returns:
      `teach(last, heads, share, generator, key) -> (last, L [steps])`, with the heads
      `[devices, ...]` and their `shares` `[devices, classes]`.
    """
    options = task.options
    steps = int(options["hop_steps"])
    tx = adam(options["hop_learning_rate"], total_steps=steps)
    maker = feature_maker(task)
    draw = functools.partial(
        drawn_inputs,
        batch_size=int(options["hop_batch_size"]),
        num_classes=task.num_classes,
        noise_size=int(options["noise_size"]),
    )

    def ahead(generator: Variables, key: Key) -> tuple[jax.Array, jax.Array]:
        """Labels and features of a batch."""
        labels, noise = draw(key)
        return labels, maker.apply(generator, noise, labels, train=False).value

    def teach(
        last: PyTree, heads: PyTree, share: jax.Array, generator: Variables, key: Key
    ) -> tuple[PyTree, jax.Array]:
        def step(
            state: PyTree, ready: tuple[jax.Array, jax.Array]
        ) -> tuple[PyTree, jax.Array]:
            last, optimizer = state
            loss, grads = jax.value_and_grad(_hop_loss)(last, heads, share, *ready)
            return descend(tx, grads, optimizer, last), loss

        # The generator stands still: it makes the features of all steps at once.
        each_key = jax.random.split(key, steps)
        ready = jax.vmap(ahead, (None, 0))(generator, each_key)
        (last, _), losses = jax.lax.scan(step, (last, tx.init(last)), ready)
        return last, losses

    return teach


def _hop_loss(
    last: PyTree,
    heads: PyTree,
    share: jax.Array,
    labels: jax.Array,
    features: jax.Array,
) -> jax.Array:
    """`L` of a batch of generated features, see the top of this file."""
    answers = jax.nn.softmax(jax.vmap(lambda one: head(one, features))(heads))
    target = jnp.sum(share[:, labels, None] * answers, axis=0)
    # A class that no device has gets a target of zero.
    known = jnp.maximum(jnp.sum(target), 1.0)
    return -jnp.sum(target * jax.nn.log_softmax(head({HEAD: last}, features))) / known
