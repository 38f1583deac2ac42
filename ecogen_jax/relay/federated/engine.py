"""A federated round as one program: what all methods share.

    sample -> send -> train on every device -> compress -> faults -> check -> merge

The server takes a message only if it is of this round, of the expected size and finite;
it goes on without the others, and a round in which it takes none leaves it as it was. A
device whose message was refused keeps what it had before the round, so the federation
is as if it had not been sampled. How many images a device has is known to the server
from the start.

Faults are simulated inside the program, by the codes of `schedule`: a message is not
sent, or is spoilt on its way, and the server finds that out by itself.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from ecogen_jax import keys, mesh
from ecogen_jax.relay.federated import privacy, schedule
from ecogen_jax.relay.federated.base import Arrived, Member, Method, Metrics
from ecogen_jax.relay.federated.compression import Compression, carried
from ecogen_jax.relay.federated.trees import chosen, copies, over
from ecogen_jax.relay.messages import ClientUpdate, ServerBroadcast
from ecogen_jax.relay.stage import Mapping
from ecogen_jax.types import Key, Leaf, PyTree


@struct.dataclass
class Federation:
    """The state between two rounds; checkpointed whole.

    Attributes:
      server: of the method.
      own: what each device keeps, `[devices, ...]`.
      errors: what compression has lost so far, `[devices, ...]`, or ().
      number: int32 scalar, rounds done.
      last_down: what one of the sampled devices, another in each round, was sent in the
        last round: for audits.
      last_up: what it sent.
      devices: int32 `[active]`, who was sampled in the last round.
      verdicts: int32 `[active]`, 0 where the message was taken, else the code of the
        fault that the server found, see `schedule`.
    """

    server: PyTree
    own: PyTree
    errors: PyTree
    number: Leaf
    last_down: ServerBroadcast
    last_up: ClientUpdate
    devices: Leaf
    verdicts: Leaf


@struct.dataclass
class Cohort:
    """The devices of one round, `[active, ...]`.

    Attributes:
      members: who they are, and their data.
      fault: int32 `[active]`, what goes wrong on the way to the server.
    """

    members: Member
    fault: Leaf


class Engine(NamedTuple):
    """A federated protocol as two pure functions.

    Attributes:
      init: `init(key, cohort) -> Federation`; of the cohort only shapes matter.
      round: `round(federation, cohort, key) -> (federation, metrics)`.
      one: one device's part of a round, for counting its operations.
    """

    init: Callable[[Key, Cohort], Federation]
    round: Callable[[Federation, Cohort, Key], tuple[Federation, Metrics]]
    one: Callable[..., Any]


class _Setup(NamedTuple):
    """What a federation is made of, see `federation`."""

    method: Method
    num_devices: int
    compression: Compression
    clip: float
    mapping: Mapping


def federation(
    method: Method,
    *,
    num_devices: int,
    compression: Compression,
    clip: float,
    mapping: Mapping,
) -> Engine:
    """Builds the protocol of a method.

    Args:
      method: what server and devices do.
      num_devices: in all.
      compression: of the updates that devices send.
      clip: largest L2 norm of an update that the server averages, all devices alike,
        for client-level differential privacy (see `privacy`); 0 for no privacy.
      mapping: how the devices of a round are mapped to those of the machine.
    """
    setup = _Setup(method, num_devices, compression, clip, mapping)
    return Engine(
        functools.partial(_init, setup),
        functools.partial(_round, setup),
        functools.partial(_one, setup),
    )


def _init(setup: _Setup, key: Key, cohort: Cohort) -> Federation:
    method, server, own = setup.method, setup.method.init(key), setup.method.own(key)
    member = jax.tree.map(lambda leaf: leaf[0], cohort.members)
    sent = method.send(server, member.edge)
    error: PyTree = ()
    if setup.compression.feeds_back:
        trained = jax.eval_shape(method.train, sent, own, member, key)
        error = jax.tree.map(jnp.zeros_like, trained.update)
    one = functools.partial(_one, setup)
    message, *_ = jax.eval_shape(one, server, member, own, error, key)
    return Federation(
        server=server,
        own=copies(own, setup.num_devices),
        errors=copies(error, setup.num_devices),
        number=jnp.int32(0),
        last_down=ServerBroadcast(sent),
        last_up=jax.tree.map(jnp.zeros_like, message),
        devices=jnp.zeros_like(cohort.members.device),
        verdicts=jnp.zeros_like(cohort.members.device),
    )


def _round(
    setup: _Setup, state: Federation, cohort: Cohort, key: Key
) -> tuple[Federation, Metrics]:
    members, device = cohort.members, cohort.members.device
    before = jax.tree.map(lambda leaf: leaf[device], (state.own, state.errors))
    messages, *after, metrics = _trained(setup, state.server, members, before, key)
    arrived = _spoilt(messages, cohort.fault)
    decode = jax.vmap(setup.compression.decode, axis_size=device.shape[0])
    updates = decode(arrived.payload)  # of no leaves, if devices send no update
    found = _found(arrived, updates, messages.size, state.number)
    dropped = cohort.fault == schedule.DROP
    verdicts = jnp.where(dropped, jnp.int32(schedule.DROP), found)
    taken = verdicts == schedule.OK
    server, server_metrics = _merged(
        setup, state.server, members, updates, arrived.facts, taken, key
    )
    own, errors = jax.tree.map(
        lambda everybody, some: everybody.at[device].set(some),
        (state.own, state.errors),
        chosen(taken, tuple(after), before),
    )
    shown = state.number % device.shape[0]
    # A sum, since an index would bring every message to every device of the machine.
    only = jnp.arange(device.shape[0]) == shown
    following = Federation(
        server=server,
        own=own,
        errors=errors,
        number=state.number + 1,
        last_down=ServerBroadcast(setup.method.send(state.server, members.edge[shown])),
        last_up=jax.tree.map(lambda leaf: _one_of(leaf, only), messages),
        devices=device,
        verdicts=verdicts,
    )
    means = _means(metrics, taken) | jax.tree.map(jnp.mean, server_metrics)
    return following, {name: each.reshape(1, 1) for name, each in means.items()}


def _one(
    setup: _Setup, server: PyTree, member: Member, own: PyTree, error: PyTree, key: Key
) -> tuple[ClientUpdate, PyTree, PyTree, Metrics]:
    """A device's part of a round: its message, and what it keeps."""
    method, compression = setup.method, setup.compression
    trained = method.train(method.send(server, member.edge), own, member, key)
    if compression.feeds_back:
        payload, error = carried(compression, trained.update, error)
    else:
        payload = compression.encode(trained.update)
    size = sum(leaf.size for leaf in jax.tree.leaves(payload))
    message = ClientUpdate(member.number, jnp.int32(size), payload, trained.facts)
    return message, trained.own, error, trained.metrics


def _trained(
    setup: _Setup,
    server: PyTree,
    members: Member,
    before: tuple[PyTree, PyTree],
    key: Key,
) -> tuple[ClientUpdate, PyTree, PyTree, Metrics]:
    """`_one` of every device of the round, leaves `[active, ...]`."""
    # A device's key depends on its number, not on who else was sampled.
    each_key = jax.vmap(lambda i: keys.stream(key, "device", i))(members.device)
    train = mesh.map_clients(
        functools.partial(_one, setup),
        backend=setup.mapping.backend,
        num_devices=setup.mapping.num_devices,
        chunk=setup.mapping.chunk,
        shared=(server,),
    )
    return train(members, *before, each_key)


def _merged(
    setup: _Setup,
    server: PyTree,
    members: Member,
    updates: PyTree,
    facts: PyTree,
    taken: jax.Array,
    key: Key,
) -> tuple[PyTree, Metrics]:
    """The server after the round; as it was, and metrics of 0, if nobody was taken."""
    weights = jnp.where(taken, members.data.size.astype(jnp.float32), 0.0)
    if setup.clip:
        updates = jax.vmap(lambda update: privacy.clip(update, setup.clip))(updates)
        weights = taken.astype(jnp.float32)
    after, metrics = setup.method.merge(
        server,
        Arrived(replace(members, data=()), updates, facts, weights),
        keys.stream(key, "server"),
    )
    if setup.clip:  # the noise has to come even if nobody did
        return after, metrics
    nothing = jax.tree.map(jnp.zeros_like, metrics)
    return chosen(jnp.any(taken), (after, metrics), (server, nothing))


def _one_of(leaf: jax.Array, only: jax.Array) -> jax.Array:
    """The entry of `[active, ...]` that `only`, bool `[active]`, marks."""
    marked = jnp.where(over(only, leaf), leaf, jnp.zeros_like(leaf))
    return jnp.sum(marked, axis=0, dtype=leaf.dtype)


def _spoilt(messages: ClientUpdate, fault: jax.Array) -> ClientUpdate:
    """The messages as they arrive, each with its fault."""
    nan = fault == schedule.NAN

    def spoil(leaf: jax.Array) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return jnp.where(over(nan, leaf), jnp.asarray(jnp.nan, leaf.dtype), leaf)

    return ClientUpdate(
        number=messages.number - (fault == schedule.STALE).astype(jnp.int32),
        size=messages.size - (fault == schedule.SHAPE).astype(jnp.int32),
        payload=jax.tree.map(spoil, messages.payload),
        facts=jax.tree.map(spoil, messages.facts),
    )


def _found(
    arrived: ClientUpdate, updates: PyTree, size: jax.Array, number: jax.Array
) -> jax.Array:
    """The fault that the server finds in each message, int32 `[active]`."""
    ok, nan, stale, shape = map(
        jnp.int32, (schedule.OK, schedule.NAN, schedule.STALE, schedule.SHAPE)
    )
    verdicts = jnp.where(arrived.size != size, shape, ok)
    verdicts = jnp.where(arrived.number != number, stale, verdicts)
    finite = jnp.ones_like(arrived.size, dtype=bool)
    for leaf in jax.tree.leaves((updates, arrived.facts)):
        finite &= jnp.isfinite(leaf).all(axis=tuple(range(1, leaf.ndim)))
    return jnp.where(finite, verdicts, nan)


def _means(metrics: Metrics, taken: jax.Array) -> Metrics:
    """Means over devices and their steps.

    A device that diverged and was refused is left out like any other fault. A
    federation that has diverged as a whole has to be told: NaN.
    """
    finite = [jnp.isfinite(each).all(axis=1) for each in metrics.values()]
    counted = taken | jnp.stack(finite).all(axis=0)
    share = counted.astype(jnp.float32) / jnp.sum(counted, dtype=jnp.float32)
    return {
        name: jnp.sum(jnp.where(counted, each.mean(axis=1), 0.0) * share)
        for name, each in metrics.items()
    }
