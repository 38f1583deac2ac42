"""A federation as one stage: rounds between the cloud and the devices below it.

| stage | trains | student | message |
|---|---|---|---|
| federated | sampled devices, then the cloud | cloud | `ServerBroadcast` down, `ClientUpdate` up |

The method determines what is sent, how a device trains and how the cloud merges: see
`ecogen_jax.relay.federated`. The edges pass messages on, unless the method gives them
their own net.
"""  # noqa: E501

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ecogen_jax import mesh, packing
from ecogen_jax.data.partition import Held
from ecogen_jax.energy import meter
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.federated import schedule, streaming
from ecogen_jax.relay.federated.base import Member
from ecogen_jax.relay.federated.engine import Cohort, Federation, Said
from ecogen_jax.relay.learn import Data
from ecogen_jax.relay.messages import (
    ClientUpdate,
    Delivery,
    Message,
    ServerBroadcast,
    num_bytes,
)
from ecogen_jax.relay.parties import BLOCK, Parties
from ecogen_jax.relay.settings import FederatedSettings, Settings
from ecogen_jax.relay.stage import Rounds, Stage
from ecogen_jax.types import Key, Leaf, PyTree

Feed = Callable[[int], Cohort]
Flops = Callable[[int], dict[str, float]]
LinkBytes = Callable[[int], tuple[int, int]]


class Shapes(NamedTuple):
    """The messages of a federation as shapes.

    Attributes:
      down: what one device is sent.
      up: what it sends.
      report: what an edge that averages for itself sends to the cloud, or None.
    """

    down: ServerBroadcast
    up: ClientUpdate
    report: ClientUpdate | None

    @property
    def silent(self) -> bool:
        """Whether every device trains alone."""
        parts = (self.down.payload, self.up.payload, self.up.facts)
        return not jax.tree.leaves(parts)


def federated(settings: Settings) -> tuple[list[Stage], list[Stage]]:
    """Builds the stage.

    Args:
      settings: with `federated`.

    Returns:
      No stage before the first cycle, and the one of the cycle.
    """
    own = settings.federated
    assert own is not None
    method, feed = own.method, _feed(settings, own)
    shapes = _shapes(own, feed)
    cloud, edges, devices = _nets(settings, own)

    def begin(parties: Parties, key: Key) -> tuple[PyTree, PyTree]:
        del parties
        first = jax.jit(own.engine.init)(key, feed(0))
        return streaming.everybody(first, settings.topology.num_devices), ()

    def end(parties: Parties, state: Federation) -> Parties:
        return replace(
            parties, cloud=cloud(state), edge=edges(state), end=(devices(state),)
        )

    def deliveries(parties: Parties) -> list[Delivery]:
        del parties
        return _deliveries(own, _blank(shapes))

    return [], [
        Stage(
            name="federated",
            phase="federated",
            tier="end",
            student="cloud" if method.has_cloud_net else "end",
            rounds=own.rounds,
            num_parties=own.plan.active.shape[1],
            begin=begin,
            one=own.engine.round,
            end=end,
            trained=cloud if method.has_cloud_net else devices,
            deliveries=deliveries,
            evaluate_every=own.evaluate_every,
            together=Rounds(
                feed=feed,
                sampled=lambda number: own.plan.active[number],
                messages=functools.partial(_messages, own),
                events=functools.partial(_events, own),
                flops=_flops(own, feed),
                link_bytes=_link_bytes(own, shapes),
            ),
        )
    ]


def _nets(
    settings: Settings, own: FederatedSettings
) -> tuple[Callable[[Federation], Variables], ...]:
    """Programs for the nets of the cloud, the edges and the devices, `[parties, ...]`.

    Each is compiled once, since every evaluation uses them. The nets of many devices
    are made block by block, and brought to the host.
    """
    method, edges_of = own.method, settings.topology.edge_of_device
    edges = jnp.arange(own.num_edges, dtype=jnp.int32)

    def device(server: PyTree, edge: jax.Array, kept: PyTree) -> Variables:
        return method.device(method.send(server, edge), kept)

    some = jax.jit(jax.vmap(device, in_axes=(None, 0, 0)))

    def devices(state: Federation) -> Variables:
        made = []
        for begin in range(0, len(edges_of), BLOCK):
            here = slice(begin, begin + BLOCK)
            kept = jax.tree.map(lambda leaf, here=here: leaf[here], state.own)
            made.append(mesh.to_host(some(state.server, edges_of[here], kept)))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *made)

    return (
        jax.jit(lambda s: jax.tree.map(lambda a: a[None], method.cloud(s.server))),
        jax.jit(lambda s: jax.vmap(lambda e: method.edge(s.server, e))(edges)),
        devices,
    )


def _feed(settings: Settings, own: FederatedSettings) -> Feed:
    """Makes `feed(number) -> Cohort`, with the data of the sampled devices only."""
    plan, evidence = own.plan, settings.evidence.private
    held, last = settings.images.private, evidence.shape[1] - 1
    # A device with flipped labels has them in every round.
    lies = np.append(np.repeat(plan.flips, np.diff(held.offsets)), False)
    held = held._replace(labels=np.where(lies, last - held.labels, held.labels))
    flips = plan.flips[:, None]
    counts = np.where(flips, evidence[:, ::-1], evidence).astype(np.float32)
    picks = own.engine.picks(plan.active.shape[1])
    everybody = _everybody(settings, held, counts) if picks else ()

    def feed(number: int) -> Cohort:
        device = plan.active[number]
        brought: tuple[Leaf, PyTree, Leaf] = ((), (), ())
        if not picks:
            data = Data(*held.padded(device))
            brought = (plan.edge[number], data, counts[device])
        return Cohort(
            members=Member(
                device,
                *brought,
                share=plan.steps_share[number],
                number=np.full(len(device), number, np.int32),
            ),
            fault=plan.fault[number].astype(np.int32),
            everybody=everybody,
        )

    return feed


def _everybody(settings: Settings, held: Held, counts: np.ndarray) -> Member:
    """The data of all devices, put onto the JAX device once; rounds select from it."""
    data = Data(*held.padded(np.arange(len(counts))))
    edge = jnp.asarray(settings.topology.edge_of_device)
    return jax.device_put(
        Member(device=(), edge=edge, data=data, counts=counts, share=(), number=())
    )


def _shapes(own: FederatedSettings, feed: Feed) -> Shapes:
    key, cohort = jax.random.key(0), feed(0)
    state, member = _first(own, cohort)
    down = jax.eval_shape(own.method.send, state.server, member.edge)
    given = (state.server, member, state.own, state.errors, key)
    up, *_ = jax.eval_shape(own.engine.one, *given)
    report, visits = None, own.method.visits
    if visits is not None:
        number = jax.ShapeDtypeStruct((), jnp.int32)
        update, facts = jax.eval_shape(visits.report, state.server)
        report = ClientUpdate(number, number, update, facts)
    return Shapes(ServerBroadcast(down), up, report)


def _first(own: FederatedSettings, cohort: Cohort) -> tuple[Federation, Member]:
    """The state with what one device keeps, and the device, as shapes."""
    state = jax.eval_shape(own.engine.init, jax.random.key(0), cohort)
    return state, jax.eval_shape(lambda each: each.member(0), cohort)


def _blank(shapes: PyTree) -> PyTree:
    """Messages of zeros, with the leading axis of one sender."""
    return jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape), leaf.dtype), shapes)


def _deliveries(own: FederatedSettings, shapes: Shapes) -> list[Delivery]:
    if shapes.silent:
        return []
    down, up, report = shapes
    came, rounds = int(np.sum(own.plan.fault != schedule.DROP)), own.rounds
    found = [
        Delivery("edge_end", "down", down, own.plan.active.size, rounds),
        Delivery("edge_end", "up", up, came, rounds),
    ]
    visits = own.method.visits
    if visits is None or report is None:
        return found + [each._replace(link="cloud_edge") for each in found]
    met, edges = (visits.down(rounds), visits.up(rounds)), own.num_edges
    return [
        *found,
        Delivery("cloud_edge", "down", down, met[0], met[0] // edges),
        Delivery("cloud_edge", "up", report, met[1], met[1] // edges),
    ]


def _link_bytes(own: FederatedSettings, shapes: Shapes) -> LinkBytes:
    """Makes `link_bytes(number)`: up and down between devices and edges in a round."""
    if shapes.silent:
        return lambda number: (0, 0)
    fault, up, down = own.plan.fault, num_bytes(shapes.up), num_bytes(shapes.down)

    def link_bytes(number: int) -> tuple[int, int]:
        arrived = int(np.count_nonzero(fault[number] != schedule.DROP))
        return arrived * up, fault.shape[1] * down

    return link_bytes


def _messages(
    own: FederatedSettings, number: int, state: Federation, said: Said
) -> list[Message]:
    """What the server would send next, and a message of one device of this process.

    What it sends first, of nets that have never been trained, is never among them. The
    round does not say the number and the size of the device's message, which are known.
    """
    edge = own.plan.edge[number][-1]
    down = ServerBroadcast(own.method.send(state.server, edge))
    last = packing.unpacked(mesh.of_last_share(said.messages))
    payload, facts = jax.tree.map(lambda leaf: leaf[0], last)
    size = sum(leaf.size for leaf in jax.tree.leaves(payload))
    return [down, ClientUpdate(np.int32(number), np.int32(size), payload, facts)]


def _events(own: FederatedSettings, number: int, said: Said) -> list[dict[str, object]]:
    """One line for each message that was refused in a round."""
    devices, verdicts = own.plan.active[number], mesh.to_host(said.verdicts)
    return [
        {
            "event": "fault",
            "device": int(devices[place]),
            "fault": schedule.FAULTS[verdicts[place]],
        }
        for place in np.flatnonzero(verdicts != schedule.OK)
    ]


def _flops(own: FederatedSettings, feed: Feed) -> Flops:
    """Makes `flops(number)`, by tier; programs are counted once."""
    counted: dict[str, float] = {}

    def flops(number: int) -> dict[str, float]:
        if not counted:
            counted.update(_counted(own, feed(number)))
        shares = float(own.plan.steps_share[number].sum())
        found = counted | {"end": counted["end"] * shares}
        visits = own.method.visits
        if visits and visits.up(number + 1) == visits.up(number):
            found["cloud"] = 0.0
        return found

    return flops


def _counted(own: FederatedSettings, cohort: Cohort) -> dict[str, float]:
    """FLOPs of one device's round, and of what the tiers above it do in a round.

    For edges that do their own averaging, the cloud's part is that of a round in which
    it averages the edges.
    """
    (state, first), key = _first(own, cohort), jax.random.key(0)
    given = (state.server, first, state.own, state.errors, key)
    one = meter.cost(own.engine.one, *given).flops
    active = cohort.fault.shape[0]
    rows = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((active, *leaf.shape), leaf.dtype),
        streaming.rows_of(state),
    )
    whole = meter.cost(
        own.engine.counted, streaming.core(state), replace(cohort, kept=rows), key
    )
    above = whole.flops - one * active
    if not own.method.visits:
        return {"end": one, "cloud": above}
    cloud = meter.cost(own.method.visits.meet, state.server).flops
    return {"end": one, "edge": above - cloud, "cloud": cloud}
