"""Stages that train on real images, which protocols share."""

from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np

from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay import learn
from ecogen_jax.relay.parties import Parties
from ecogen_jax.relay.settings import LearnSettings, Settings
from ecogen_jax.relay.stage import Stage, no_messages, repeat
from ecogen_jax.types import Key, PyTree


def learn_stage(
    *,
    name: str,
    phase: str,
    tier: str,
    student: str,
    num_parties: int,
    settings: LearnSettings,
    start: Callable[[Parties, Key], tuple[Variables, learn.Material]],
    end: Callable[[Parties, Variables], Parties],
    setup_flops: Callable[[Parties], float] = lambda parties: 0.0,
    kind: int = 0,
    members: tuple[int, ...] = (),
) -> Stage:
    """Builds a stage of `learn.learner`, which sends nothing.

    Args:
      name: see `Stage`, as for `phase`, `tier`, `student`, `num_parties`,
        `setup_flops`, `kind` and `members`.
      phase: see `Stage`.
      tier: see `Stage`.
      student: see `Stage`.
      num_parties: see `Stage`.
      settings: its size.
      start: `start(parties, key)` gives the nets to train and what they learn from,
        both with a leading party axis.
      end: `end(parties, trained) -> parties`.
      setup_flops: see `Stage`.
      kind: see `Stage`.
      members: see `Stage`.
    """

    def begin(parties: Parties, key: Key) -> tuple[PyTree, PyTree]:
        variables, material = start(parties, key)
        return jax.jit(jax.vmap(settings.learner.init))(variables), material

    return Stage(
        name=name,
        phase=phase,
        tier=tier,
        student=student,
        rounds=settings.rounds,
        num_parties=num_parties,
        begin=begin,
        one=repeat(settings.learner.step, settings.steps),
        end=lambda parties, state: end(parties, state.variables),
        trained=lambda state: state.variables,
        deliveries=no_messages,
        setup_flops=setup_flops,
        kind=kind,
        members=members,
    )


def pretrain(settings: Settings) -> Stage:
    """The stage that trains the cloud on the public images."""
    counts = settings.evidence.public.astype(np.int32)[None]

    def end(parties: Parties, trained: Variables) -> Parties:
        relay = replace(parties.cloud_relay, label_counts=counts)
        return replace(parties, cloud=trained, cloud_relay=relay)

    return learn_stage(
        name="pretrain",
        phase="pretrain",
        tier="cloud",
        student="cloud",
        num_parties=1,
        settings=settings.learning["pretrain"],
        start=lambda parties, key: (
            parties.cloud,
            learn.Material(settings.images.public, None),
        ),
        end=end,
    )


def devices_alone(settings: Settings, name: str, kind: int, *, kept: bool) -> Stage:
    """The stage that trains the devices of one kind on their private images.

    Args:
      settings: of the protocol.
      name: of the stage.
      kind: of the devices, see `Topology.devices_of_kind`.
      kept: whether the devices keep the trained nets, or it is a baseline.
    """
    kinds = len(settings.nets.end)
    devices = settings.topology.devices_of_kind(kind, kinds)
    private = settings.images.private

    def end(parties: Parties, trained: Variables) -> Parties:
        if not kept:
            return parties
        ends = [*parties.end]
        ends[kind] = trained
        return replace(parties, end=tuple(ends))

    return learn_stage(
        name=name,
        phase="local_only",
        tier="end",
        student="end",
        num_parties=len(devices),
        settings=settings.learning[name],
        start=lambda parties, key: (
            parties.end[kind],
            learn.Material(learn.Data(*private.padded(devices)), None),
        ),
        end=end,
        kind=kind,
        members=tuple(devices.tolist()),
    )
