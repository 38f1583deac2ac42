"""The interface of federated methods: pure functions of the server and the devices.

A method defines how the server starts (`init`), what it sends, how a device trains, and
how the server merges the messages. `engine.federation` turns a method into the two
functions of a protocol, `init` and `round`, and adds what all methods share: sampling,
faults, compression, privacy and the mapping over devices.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from flax import struct

from ecogen_jax.nets.functional import Net, Variables
from ecogen_jax.relay.distillers.base import Distiller, Generation
from ecogen_jax.types import Key, Leaf, PyTree

Metrics = dict[str, jax.Array]


class Local(NamedTuple):
    """Local training of a device in a round.

    Attributes:
      steps: SGD steps.
      batch_size: images per step. A round goes through the device's images in random
        order, and starts again if it has fewer images than the steps need.
      learning_rate: of the first round.
      decay: what it is multiplied by after each round.
      momentum: of SGD; reset to zero in each round.
      stragglers: whether some devices do only a share of the steps.
    """

    steps: int
    batch_size: int
    learning_rate: float
    decay: float
    momentum: float
    stragglers: bool


@struct.dataclass
class Member:
    """One device that takes part in a round.

    Attributes:
      device: int32 scalar, its number among all devices.
      edge: int32 scalar, the edge that it belongs to.
      data: its images, `learn.Data`. If a round selects them from the images of all
        devices, edge, data and counts are () until then, see `engine.Cohort`.
      counts: float32 `[classes]`, its images by class.
      share: float32 scalar, the share of the local steps that it does.
      number: int32 scalar, the round, from 0.
      order: int32 `[length]`, its images in random order, the padding last; () until
        the engine has drawn it.
    """

    device: Leaf
    edge: Leaf
    data: PyTree
    counts: Leaf
    share: Leaf
    number: Leaf
    order: Leaf = ()


@struct.dataclass
class Trained:
    """The result of a device's local training.

    Attributes:
      update: the change of what it received. The server averages it, so it may be
        compressed, clipped and noised.
      facts: everything else that it sends: label counts, mean logits, statistics.
      own: state that it keeps for the next round in which it takes part.
      metrics: `[steps]` each.
    """

    update: PyTree
    facts: PyTree
    own: PyTree
    metrics: PyTree


@struct.dataclass
class Arrived:
    """What the server has received at the end of a round, `[active, ...]`.

    One entry for each sampled device; or, for a method with `pools`, one entry for each
    pool of devices, with their weighted mean.

    Attributes:
      device: int32 `[active]`, the sender; -1 for a pool.
      edge: int32 `[active]`, the edge that it came through; 0 for a single pool.
      updates: the changes of the devices.
      facts: everything else that they sent.
      weights: float32 `[active]`: number of images behind it, 0 if the message was
        refused. Values with weight 0 may be anything.
      pooled: whether the entries are pools; with one pool per edge, in order.
      known: what the server knew of each sender before, see `Method.known`.
    """

    device: Leaf
    edge: Leaf
    updates: PyTree
    facts: PyTree
    weights: Leaf
    pooled: bool = struct.field(pytree_node=False, default=False)
    known: PyTree = ()


class Visits(NamedTuple):
    """How the cloud exchanges nets with edges that do their own averaging.

    Attributes:
      down: `down(rounds)`, how many times an edge is sent what a device is sent, all
        edges together.
      up: `up(rounds)`, how many times an edge reports, likewise.
      report: `report(server) -> (update, facts)`, as one edge reports them.
      meet: `meet(server) -> nets`, what the cloud computes after the edges' reports;
        all other work of `merge` is done by the edges.
    """

    down: Callable[[int], int]
    up: Callable[[int], int]
    report: Callable[[PyTree], tuple[PyTree, PyTree]]
    meet: Callable[[PyTree], PyTree]


class Method(NamedTuple):
    """A federated method.

    Attributes:
      init: `init(key) -> server`, the server's state.
      own: `own(key) -> own`, what one device keeps, before the first round.
      send: `send(server, edge) -> received`: what a device below that edge is sent.
      train: `train(received, own, member, key) -> Trained`, on one device.
      merge: `merge(server, arrived, key) -> (server, metrics)`.
      cloud: `cloud(server) -> Variables`: the net that the cloud has.
      edge: `edge(server, index) -> Variables`: the net that an edge has.
      device: `device(received, own) -> Variables`: the net that a device uses for
        inference.
      lesson: the part of the received payload that a device trains from.
      begins: `begins(server, index) -> Variables`: the net from which devices below an
        edge start their training, as far as it is sent; None if it is the edge's net.
      has_cloud_net: whether the net that `cloud` gives has been trained.
      pools: how many weighted means of updates and facts `merge` needs: 1, over all
        devices; or one per edge; 0 if it needs the message of every single device.
      visits: what crosses the link between cloud and edges; None if edges only pass on
        the messages between devices and server.
      known: `known(key)`, what the server remembers of a device that it has not heard
        yet; it is streamed like the state of the devices.
      remember: `remember(arrived) -> known`, `[active, ...]`, after a round.
    """

    init: Callable[[Key], PyTree]
    own: Callable[[Key], PyTree]
    send: Callable[[PyTree, Leaf], PyTree]
    train: Callable[[PyTree, PyTree, Member, Key], Trained]
    merge: Callable[[PyTree, Arrived, Key], tuple[PyTree, Metrics]]
    cloud: Callable[[PyTree], Variables]
    edge: Callable[[PyTree, jax.Array], Variables]
    device: Callable[[PyTree, PyTree], Variables]
    lesson: Callable[[PyTree], PyTree] = lambda received: received
    begins: Callable[[PyTree, jax.Array], Variables] | None = None
    has_cloud_net: bool = True
    pools: int = 0
    visits: Visits | None = None
    known: Callable[[Key], PyTree] = lambda key: ()
    remember: Callable[[Arrived], PyTree] = lambda arrived: ()


Aggregate = Callable[[PyTree, jax.Array, Key], PyTree]
"""`aggregate(updates [active, ...], weights [active], key) -> update`."""


class Maker(NamedTuple):
    """The generator of images of a server that has one.

    Attributes:
      net: from noise `[batch, latent_size]` and labels `[batch]` to images.
      latent_size: length of the noise vector.
    """

    net: Net
    latent_size: int


class Distillation(NamedTuple):
    """A hop from the devices of a round to the server's net.

    Attributes:
      distiller: built for as many teachers as devices are active, all of one kind.
      generation: how its images are made.
      weigh: maps the label counts of the devices to their teacher weights, both
        `[active, classes]`.
      steps: generator steps in a round.
      reads_logits: see `Kind`.
    """

    distiller: Distiller
    generation: Generation
    weigh: Callable[[jax.Array], jax.Array]
    steps: int
    reads_logits: bool


class Task(NamedTuple):
    """The arguments from which methods are built.

    Attributes:
      net: of the server and of every device.
      shape: height, width and channels of one image.
      num_classes: number of labels.
      num_devices: devices in all.
      active: devices sampled in a round.
      num_edges: edges between them and the cloud.
      local: local training.
      share: `all` layers are shared, or only the `head`: the last linear layer.
      keeps_statistics: whether running statistics of BatchNorm stay on the device. If
        all layers are shared, they are still sent up, for the cloud's own net, but
        never down.
      aggregate: the aggregator of the updates.
      options: fields of the method's own section in the config.
      proxy: unlabelled images of the server, uint8 `[size, ...]`; empty for methods
        that are data-free.
      maker: for servers that generate images.
      distillation: for servers that take a hop in each round.
      sends_statistics: whether statistics that stay are still sent up. If not, the
        cloud's net keeps those that it started with.
    """

    net: Net
    shape: tuple[int, int, int]
    num_classes: int
    num_devices: int
    active: int
    num_edges: int
    local: Local
    share: str
    keeps_statistics: bool
    aggregate: Aggregate
    options: dict[str, float]
    proxy: np.ndarray
    maker: Maker | None = None
    distillation: Distillation | None = None
    sends_statistics: bool = True
