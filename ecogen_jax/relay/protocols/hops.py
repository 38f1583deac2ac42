"""A route of hops, run once: from any tier to any other, with its baselines.

| stage | trains | student | message |
|---|---|---|---|
| pretrain | cloud | cloud | none: public images, where the route starts there |
| train | end | end | none: private images, where the route starts there |
| baseline/student | cloud | receiver of the first hop | none: public images, labels |
| baseline/kd | cloud | the same | none: public images, the cloud's logits |
| baseline/kd_noise | cloud | the same | none: uniform noise, the cloud's logits |
| baseline/kd_usps, ... | cloud | the same | none: images of that dataset, likewise |
| down/... | sender | receiver | a generator, and the student distilled with it |
| up/... | receiver | receiver | the senders' weights and label counts |

Downwards every sender trains one student for all receivers below it. Upwards every
receiver trains, with all senders below it as teachers. Students and generators are new
in each hop, with two exceptions:

- In an up hop, a receiver that already has a trained net continues with it, and this
  net is also one of its teachers, as in a relay cycle. (Downwards this is not needed:
  the receiver's knowledge went up before, and is part of the sender's net.)
- The party that trains may continue with the generator that it holds, from an earlier
  hop or from a message (`Leg.generator`).

A direct hop, between cloud and end, crosses both links with each party's own message:
the edge passes it on unread.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ecogen_jax import keys
from ecogen_jax.energy import meter
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay import learn
from ecogen_jax.relay.distillers.base import HopState
from ecogen_jax.relay.hop import (
    Start,
    as_counts,
    as_groups,
    as_members,
    fresh,
    hop_stage,
    take,
)
from ecogen_jax.relay.messages import Delivery, GeneratorAndStudent, TeacherWeights
from ecogen_jax.relay.parties import Parties, Topology
from ecogen_jax.relay.settings import Leg, Settings
from ecogen_jax.relay.stage import Stage, one_party
from ecogen_jax.relay.training import devices_alone, learn_stage, pretrain
from ecogen_jax.types import Key


class Behind(NamedTuple):
    """The training data behind the nets of a tier.

    Attributes:
      sources: whose images each party's net comes from, by whatever way: the public
        ones and those of every device, bool `[parties, 1 + devices]`.
      taught: whether a hop trained them from scratch, on generated images. A net that
        continued from its own still has its old BatchNorm statistics.
    """

    sources: np.ndarray
    taught: bool = False


Tiers = dict[str, Behind]


def hops(settings: Settings) -> tuple[list[Stage], list[Stage]]:
    """Builds the stages.

    Args:
      settings: with `learning` for the stages of `route.start` and, where there are
        baselines, for `baseline`; `hops` for all legs.

    Returns:
      The stages that train the first senders and the baselines, and the hops.
    """
    route = settings.route
    if route.start == ("pretrain",):
        start = [pretrain(settings)]
    else:
        start = [
            devices_alone(settings, name, kind, kept=True)
            for kind, name in enumerate(route.start)
        ]
    start += [_baseline(settings, name) for name in route.baselines]
    every = np.eye(1 + settings.topology.num_devices, dtype=bool)
    tiers = {"cloud": Behind(every[:1]), "end": Behind(every[1:])}
    stages = []
    for leg in route.legs:
        build = _up if leg.direction == "up" else _down
        stage, sources = build(settings, leg, tiers)
        stages.append(stage)
        taught = tiers[leg.receiver].taught if leg.returns else True
        tiers = tiers | {leg.receiver: Behind(sources, taught)}
    return start, stages


def _counts(settings: Settings, sources: np.ndarray) -> np.ndarray:
    """Images of each class, `[..., sources]` to `[..., classes]`; each counts once."""
    public, private = settings.evidence
    counts: np.ndarray = sources @ np.concatenate([public[None], private])
    return counts


def _baseline(settings: Settings, name: str) -> Stage:
    """A net like the first receivers', distilled from the cloud without any hop."""
    receiver = settings.route.legs[0].receiver
    (net, *_), teacher = settings.nets.of_tier(receiver), settings.nets.cloud

    given = settings.route.images.get(name, settings.images.public.images[0])

    def pictures(key: Key) -> jax.Array:
        if name == "kd_noise":  # as many as public images
            return jax.random.bits(key, given.shape, jnp.uint8)
        return jnp.asarray(given)

    def ask(variables: Variables, images: jax.Array) -> learn.Replay:
        return learn.asked(teacher, variables, images)

    def start(parties: Parties, key: Key) -> tuple[Variables, learn.Material]:
        student = fresh(net, keys.stream(key, "student"), 1)
        if name == "student":
            return student, learn.Material(settings.images.public, None)
        images = pictures(keys.stream(key, "images"))[None]
        replay = jax.jit(jax.vmap(ask))(parties.cloud, images)
        return student, learn.Material(None, replay)

    def setup_flops(parties: Parties) -> float:
        if name == "student":
            return 0.0
        asked = jax.eval_shape(pictures, jax.random.key(0))
        return meter.cost(ask, one_party(parties.cloud), asked).flops

    return learn_stage(
        name=f"baseline/{name}",
        phase="baseline",
        tier="cloud",
        student=receiver,
        num_parties=1,
        settings=settings.learning["baseline"],
        start=start,
        end=lambda parties, trained: parties,  # the net is discarded
        setup_flops=setup_flops,
    )


def _down(settings: Settings, leg: Leg, tiers: Tiers) -> tuple[Stage, np.ndarray]:
    """A hop in which every sender trains; and the sources behind its receivers."""
    nets, topology = settings.nets, settings.topology
    (net,), hop = nets.of_tier(leg.receiver), settings.hops[leg.stage]
    senders, receivers = topology.size(leg.sender), topology.size(leg.receiver)
    sender = np.arange(receivers) // (receivers // senders)
    first = np.arange(senders) * (receivers // senders)
    sources, taught = tiers[leg.sender]
    known = _counts(settings, sources)

    def start(parties: Parties, key: Key) -> Start:
        (teacher,) = parties.of_tier(leg.sender)
        return Start(
            fresh(net, keys.stream(key, "student"), senders),
            _generator(settings, leg, parties, key),
            hop.teachers((as_members(teacher),), jnp.asarray(known[:, None]), [taught]),
        )

    def end(parties: Parties, state: HopState) -> Parties:
        student = take(state.student, sender)
        parties = _with_generator(parties, leg.sender, state.kept, known)
        return parties.with_tier(leg.receiver, (student,))

    def deliveries(parties: Parties) -> list[Delivery]:
        (taught,) = parties.of_tier(leg.receiver)
        generator = parties.relay_of(leg.sender).generator
        if not hop.keeps_generator:  # no generator to send
            generator = Variables({}, {})
        messages = GeneratorAndStudent(generator, take(taught, first), as_counts(known))
        return [Delivery(link, "down", messages, receivers) for link in leg.links]

    stage = hop_stage(
        leg,
        hop,
        num_parties=senders,
        start=start,
        end=end,
        deliveries=deliveries,
    )
    return stage, sources[sender]


def _up(settings: Settings, leg: Leg, tiers: Tiers) -> tuple[Stage, np.ndarray]:
    """A hop in which every receiver trains; and the sources behind its receivers."""
    nets, topology, hop = settings.nets, settings.topology, settings.hops[leg.stage]
    (net,), receivers = nets.of_tier(leg.receiver), topology.size(leg.receiver)
    kinds = _by_kind(topology, leg.sender, len(nets.of_tier(leg.sender)))
    sent = [tiers[leg.sender].sources[parties] for parties in kinds]
    heard = [one.reshape(receivers, len(one) // receivers, -1) for one in sent]
    taught = [tiers[leg.sender].taught for one in heard for _ in one[0]]
    if leg.returns:
        own, own_taught = tiers[leg.receiver]
        heard, taught = [*heard, own[:, None]], [*taught, own_taught]
    teachers = np.concatenate(heard, axis=1)
    behind, learnt = _counts(settings, teachers), np.asarray(teachers.any(axis=1))
    told = [_counts(settings, one) for one in sent]

    def start(parties: Parties, key: Key) -> Start:
        (own,) = parties.of_tier(leg.receiver)
        groups = [as_groups(one, receivers) for one in parties.of_tier(leg.sender)]
        student = fresh(net, keys.stream(key, "student"), receivers)
        if leg.returns:
            groups, student = [*groups, as_members(own)], own
        return Start(
            student,
            _generator(settings, leg, parties, key),
            hop.teachers(tuple(groups), jnp.asarray(behind), taught),
        )

    def end(parties: Parties, state: HopState) -> Parties:
        known = _counts(settings, learnt)
        parties = _with_generator(parties, leg.receiver, state.kept, known)
        return parties.with_tier(leg.receiver, (state.student,))

    def deliveries(parties: Parties) -> list[Delivery]:
        return [
            Delivery(link, "up", TeacherWeights(one, as_counts(known)), len(known))
            for link in leg.links
            for one, known in zip(parties.of_tier(leg.sender), told, strict=True)
        ]

    stage = hop_stage(
        leg,
        hop,
        num_parties=receivers,
        start=start,
        end=end,
        deliveries=deliveries,
        ensemble=leg.sender if topology.size(leg.sender) > 1 else "",
    )
    return stage, learnt


def _generator(settings: Settings, leg: Leg, parties: Parties, key: Key) -> Variables:
    """The first generators of the parties that train."""
    count = settings.topology.size(leg.trainer)
    if not leg.generator:
        return fresh(settings.nets.generator, keys.stream(key, "generator"), count)
    makers = settings.topology.size(leg.generator)
    maker = np.arange(count) // (count // makers)
    return take(parties.relay_of(leg.generator).generator, maker)


def _by_kind(topology: Topology, tier: str, kinds: int) -> list[np.ndarray]:
    """Indices of a tier's parties, one entry for each kind of net."""
    if tier != "end":
        return [np.arange(topology.size(tier))]
    return [topology.devices_of_kind(kind, kinds) for kind in range(kinds)]


def _with_generator(
    parties: Parties, tier: str, generator: Variables, counts: np.ndarray
) -> Parties:
    """The parties once a tier has a new generator, and the images behind it."""
    relay = replace(
        parties.relay_of(tier), generator=generator, label_counts=as_counts(counts)
    )
    return parties.with_relay(tier, relay)
