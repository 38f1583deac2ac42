"""A federated round as one program: the code that all methods share.

    sample -> send -> train on every device -> compress -> faults -> check -> merge

The server accepts a message only if it belongs to this round, has the expected size and
is finite. It continues without refused messages; a round without any accepted message
leaves the server unchanged, unless it adds noise for privacy or edges report to the
cloud (`hierarchical`). A device whose message was refused keeps its state from
before the round, as if it had not been sampled. The server knows from the start how
many images each device has.

Faults are simulated inside the program, by the codes of `schedule`: a message is not
sent, or is corrupted on its way, and the server has to detect it.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from ecogen_jax import keys, mesh, packing
from ecogen_jax.relay.distillers.base import COLLAPSE
from ecogen_jax.relay.federated import pools, privacy, schedule
from ecogen_jax.relay.federated.base import Arrived, Member, Method, Metrics
from ecogen_jax.relay.federated.compression import Compression, carried
from ecogen_jax.relay.federated.heard import (
    Heard,
    Sums,
    added,
    nobody,
    of_all_shares,
)
from ecogen_jax.relay.federated.local import ordered
from ecogen_jax.relay.federated.trees import chosen
from ecogen_jax.relay.learn import Data
from ecogen_jax.relay.messages import ClientUpdate, all_finite
from ecogen_jax.relay.stage import Mapping, one_party
from ecogen_jax.types import Key, Leaf, PyTree

SERVER = "server_"
"""What the names of the server's metrics start with; others are means over devices."""


@struct.dataclass
class Federation:
    """The state between two rounds; checkpointed whole.

    What there is for each device stays on the host, and a round has only that of its
    devices: see `streaming`.

    Attributes:
      server: of the method.
      number: int32 scalar, rounds done.
      own: the state that each device keeps, `[devices, ...]`; () within a round.
      errors: compression errors so far, `[devices, ...]`, or (); likewise.
      known: what the server remembers of each device, `[devices, ...]`; likewise.
    """

    server: PyTree
    number: Leaf
    own: PyTree = ()
    errors: PyTree = ()
    known: PyTree = ()


@struct.dataclass
class Said:
    """What the host reads of a round.

    It stays on the JAX devices on which it was made: bringing it together there would
    make them wait for each other.

    Attributes:
      verdicts: int32 `[active]`, of the sampled devices: 0 if the message was accepted,
        else the code of the fault that the server found, see `schedule`.
      messages: payload and facts of the last message of each share of the devices,
        `[shares, ...]`, packed: for audits.
      kept: `own`, `errors` and `known` of the sampled devices after the round,
        `[active, ...]`.
    """

    verdicts: Leaf
    messages: packing.Packed
    kept: PyTree = ()


@struct.dataclass
class Cohort:
    """The devices of one round, `[active, ...]`.

    Attributes:
      members: who they are, and their data.
      fault: int32 `[active]`, the fault of each message on the way to the server.
      everybody: edge, data and counts of all devices in order, `[devices, ...]`, if a
        round selects those of its members from them (see `Engine.picks`); else ().
      kept: `own`, `errors` and `known` of the members before the round,
        `[active, ...]`, once `streaming.handed_out` has added them.
    """

    members: Member
    fault: Leaf
    everybody: PyTree = ()
    kept: PyTree = ()

    def member(self, place: int) -> Member:
        """The device at a place, with its images."""
        members = _with_their_own(self)
        one = jax.tree.map(lambda leaf: jnp.asarray(leaf[place]), members)
        return _with_images(one, _images(self))


class Engine(NamedTuple):
    """A federated protocol as two pure functions.

    Attributes:
      init: `init(key, cohort) -> Federation`, with what there is for one device before
        the first round: the same for all. Of the cohort only shapes matter.
      round: `round(federation, cohort, key) -> (federation, metrics, said)`, of a
        federation and a cohort from `streaming.handed_out`.
      one: one device's part of a round, for counting its operations.
      counted: the round on one JAX device, one end device after another, for counting:
        the operations do not depend on the mapping.
      picks: `picks(active)`, whether a round of that many devices selects their images
        from the images of all devices: if all take part, and one JAX device does all
        the work, the images may stay on it from round to round.
    """

    init: Callable[[Key, Cohort], Federation]
    round: Callable[[Federation, Cohort, Key], tuple[Federation, Metrics, Said]]
    one: Callable[..., Any]
    counted: Callable[[Federation, Cohort, Key], tuple[Federation, Metrics, Said]]
    picks: Callable[[int], bool]


class _Setup(NamedTuple):
    """The parts of a federation, see `federation`."""

    method: Method
    num_devices: int
    compression: Compression
    clip: float
    pools: int
    mapping: Mapping


def federation(
    method: Method,
    *,
    num_devices: int,
    compression: Compression,
    clip: float,
    linear: bool,
    mapping: Mapping,
) -> Engine:
    """Builds the protocol of a method.

    Args:
      method: what server and devices do.
      num_devices: in all.
      compression: of the updates that devices send.
      clip: largest L2 norm of an update that the server averages, all devices alike,
        for client-level differential privacy (see `privacy`); 0 for no privacy.
      linear: whether the server's aggregate is a weighted mean, so that messages may be
        added up as they arrive where the method needs no more of them.
      mapping: how the devices of a round are mapped to those of the machine.
    """
    count = method.pools if linear else 0
    setup = _Setup(method, num_devices, compression, clip, count, mapping)
    return Engine(
        functools.partial(_init, setup),
        functools.partial(_round, setup),
        functools.partial(_alone, setup),
        functools.partial(_round, setup._replace(mapping=Mapping("scan", 1))),
        functools.partial(_picks, setup),
    )


def _picks(setup: _Setup, active: int) -> bool:
    shards = mesh.num_shards(active, setup.mapping.num_devices)
    return active == setup.num_devices and shards == 1


def _init(setup: _Setup, key: Key, cohort: Cohort) -> Federation:
    method, server, own = setup.method, setup.method.init(key), setup.method.own(key)
    error: PyTree = ()
    if setup.compression.feeds_back:
        member = cohort.member(0)
        sent = method.send(server, member.edge)
        trained = jax.eval_shape(method.train, sent, own, ordered(member, key), key)
        error = jax.tree.map(jnp.zeros_like, trained.update)
    return Federation(server, jnp.int32(0), own, error, method.known(key))


def _round(
    setup: _Setup, state: Federation, cohort: Cohort, key: Key
) -> tuple[Federation, Metrics, Said]:
    cohort = replace(cohort, members=_with_their_own(cohort))
    kept, verdicts, sums, arrived = _heard_from(setup, state, cohort, key)
    kept = (*kept, setup.method.remember(arrived))
    server, server_metrics = _merged(setup, state.server, arrived, key)
    following = replace(state, server=server, number=state.number + 1)
    # If every device diverged, 0 / 0 gives NaN, which reports the divergence.
    means = jax.tree.map(lambda total: total / sums.counted, sums.metrics)
    means |= {
        name if name == COLLAPSE else SERVER + name: jnp.mean(each)
        for name, each in server_metrics.items()
    }
    metrics = {name: each.reshape(1, 1) for name, each in means.items()}
    return following, metrics, Said(verdicts, packing.packed(sums.last), kept)


def _alone(
    setup: _Setup, server: PyTree, member: Member, own: PyTree, error: PyTree, key: Key
) -> tuple[ClientUpdate, PyTree, PyTree, Metrics]:
    return _one(setup, server, ordered(member, key), own, error, key)


def _one(
    setup: _Setup, server: PyTree, member: Member, own: PyTree, error: PyTree, key: Key
) -> tuple[ClientUpdate, PyTree, PyTree, Metrics]:
    """A round on one device: its message, and the state that it keeps."""
    method, compression = setup.method, setup.compression
    trained = method.train(method.send(server, member.edge), own, member, key)
    if compression.feeds_back:
        payload, error = carried(compression, trained.update, error)
    else:
        payload = compression.encode(trained.update)
    size = sum(leaf.size for leaf in jax.tree.leaves(payload))
    message = ClientUpdate(member.number, jnp.int32(size), payload, trained.facts)
    return message, trained.own, error, trained.metrics


def _heard_from(
    setup: _Setup, state: Federation, cohort: Cohort, key: Key
) -> tuple[PyTree, Leaf, Sums, Arrived]:
    """The round on every device: what it keeps, its verdict, what the server gets."""
    # A device's key depends on its number, not on the other sampled devices.
    numbers = cohort.members.device
    each_key = jax.vmap(lambda i: keys.stream(key, "device", i))(numbers)
    members = jax.vmap(ordered)(cohort.members, each_key)
    *kept, known = cohort.kept
    own = (members, cohort.fault, *kept, each_key)
    common = (state.server, state.number, _images(cohort))
    each, count = functools.partial(_told, setup), setup.pools
    _, said, one = jax.eval_shape(each, *common, *one_party(own))

    def told(*arguments: PyTree) -> tuple[PyTree, PyTree]:
        kept, said, one = each(*arguments)
        alone = (kept, said.verdict, () if count else one)
        return alone, (said, one if count else ())

    (kept, verdicts, arrived), sums = mesh.fold_clients(
        told,
        mesh.Fold(nobody(said, one, count), added),
        backend=setup.mapping.backend,
        num_devices=setup.mapping.num_devices,
        chunk=setup.mapping.chunk,
        shared=common,
    )(*own)
    whole = of_all_shares(sums)
    arrived = pools.means(whole.pools) if count else replace(arrived, known=known)
    return kept, verdicts, whole, arrived


def _told(
    setup: _Setup,
    server: PyTree,
    number: jax.Array,
    images: Leaf,
    member: Member,
    fault: jax.Array,
    own: PyTree,
    error: PyTree,
    key: Key,
) -> tuple[PyTree, Heard, Arrived]:
    """Round `number` on one device: its new state, its message, the message on arrival.

    If its message was refused, it keeps its old state.
    """
    member = _with_images(member, images)
    message, *after, metrics = _one(setup, server, member, own, error, key)
    arrived = _spoilt(message, fault)
    update = setup.compression.decode(arrived.payload)
    verdict = _verdict(arrived, update, message.size, number)
    dropped = jnp.int32(schedule.DROP)
    verdict = jnp.where(fault == dropped, dropped, verdict)
    taken = verdict == schedule.OK
    size = member.data.size.astype(jnp.float32)
    if setup.clip:
        update, size = privacy.clip(update, setup.clip), jnp.float32(1.0)
    weight = jnp.where(taken, size, 0.0)
    return (
        chosen(taken, tuple(after), (own, error)),
        Heard(verdict, (message.payload, message.facts), metrics),
        Arrived(member.device, member.edge, update, arrived.facts, weight),
    )


def _with_their_own(cohort: Cohort) -> Member:
    """The members with their selected data, without images: see `_with_images`."""
    members, every = cohort.members, cohort.everybody
    if not isinstance(every, Member):
        return members
    edge, counts, labels, size = (
        leaf[members.device]
        for leaf in (every.edge, every.counts, every.data.labels, every.data.size)
    )
    return replace(members, edge=edge, counts=counts, data=Data((), labels, size))


def _images(cohort: Cohort) -> Leaf:
    """The images of all devices, or () if members have their own."""
    every = cohort.everybody
    return every.data.images if isinstance(every, Member) else ()


def _with_images(member: Member, images: Leaf) -> Member:
    """A device with its part of the images of all devices, or with its own."""
    if isinstance(images, tuple):
        return member
    return replace(member, data=replace(member.data, images=images[member.device]))


def _merged(
    setup: _Setup, server: PyTree, arrived: Arrived, key: Key
) -> tuple[PyTree, Metrics]:
    """The server after the round.

    If all messages were refused, it is the one before, with metrics 0, unless there is
    noise for privacy or edges report.
    """
    after, metrics = setup.method.merge(server, arrived, keys.stream(key, "server"))
    # Noise is added even without any message, and edges report at their fixed rounds.
    if setup.clip or setup.method.visits:
        return after, metrics
    nothing = jax.tree.map(jnp.zeros_like, metrics)
    return chosen(jnp.any(arrived.weights > 0), (after, metrics), (server, nothing))


def _spoilt(message: ClientUpdate, fault: jax.Array) -> ClientUpdate:
    """A message as it arrives, corrupted by its fault.

    NaN is put into one array only, the smallest: the server has to check all arrays
    anyway, and the others need not be copied.
    """
    leaves, structure = jax.tree.flatten((message.payload, message.facts))
    floats = [
        at
        for at, leaf in enumerate(leaves)
        if leaf.size and jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    if floats:
        at = min(floats, key=lambda at: leaves[at].size)
        nan = jnp.asarray(jnp.nan, leaves[at].dtype)
        leaves[at] = jnp.where(fault == schedule.NAN, nan, leaves[at])
    payload, facts = jax.tree.unflatten(structure, leaves)
    return ClientUpdate(
        number=message.number - (fault == schedule.STALE).astype(jnp.int32),
        size=message.size - (fault == schedule.SHAPE).astype(jnp.int32),
        payload=payload,
        facts=facts,
    )


def _verdict(
    arrived: ClientUpdate, update: PyTree, size: jax.Array, number: jax.Array
) -> jax.Array:
    """The fault that the server finds in a message, int32."""
    ok, nan, stale, shape = map(
        jnp.int32, (schedule.OK, schedule.NAN, schedule.STALE, schedule.SHAPE)
    )
    verdict = jnp.where(arrived.size != size, shape, ok)
    verdict = jnp.where(arrived.number != number, stale, verdict)
    finite = all_finite((update, arrived.facts))
    return jnp.where(finite, verdict, nan)
