"""A relay cycle of toy nets: two edges of two devices, three classes, tiny settings."""

from typing import Any, NamedTuple

import jax
import numpy as np

from ecogen_jax import keys
from ecogen_jax.relay import learn
from ecogen_jax.relay.augmentation import NONE
from ecogen_jax.relay.distillers import DISTILLERS
from ecogen_jax.relay.distillers.base import Generation, Hop, Study, Weights
from ecogen_jax.relay.ensemble import label_count_weights
from ecogen_jax.relay.parties import Parties, Topology, initialise
from ecogen_jax.relay.protocols import PROTOCOLS
from ecogen_jax.relay.protocols.relay_cycle import LEGS
from ecogen_jax.relay.settings import (
    Evidence,
    HopSettings,
    Images,
    LearnSettings,
    ReplaySettings,
    Route,
    Settings,
)
from ecogen_jax.relay.stage import Mapping, Stage, compile_round
from tests import toy_nets

NETS = toy_nets.nets()
TOPOLOGY = Topology(num_edges=2, devices_per_edge=2)
# The cloud has never seen class 2, which only the last device has.
EVIDENCE = Evidence(
    public=np.array([6, 2, 0]),
    private=np.array([[4, 0, 0], [2, 2, 0], [0, 6, 0], [1, 0, 3]]),
)
BATCH, BANK, REPLAY, STEPS = 8, 32, 6, 2
KEY = keys.root(5)


def _data(counts: np.ndarray) -> learn.Data:
    """Images of random bytes, padded to the longest party."""
    length = counts.sum(axis=1).max()
    rng = np.random.default_rng(0)
    size = (len(counts), length, *toy_nets.SHAPE)
    labels = np.zeros((len(counts), length), np.int32)
    for party, row in enumerate(counts):
        labels[party, : row.sum()] = np.repeat(np.arange(len(row)), row)
    return learn.Data(
        rng.integers(0, 256, size, dtype=np.uint8),
        labels,
        counts.sum(axis=1).astype(np.int32),
    )


IMAGES = Images(
    public=_data(EVIDENCE.public[None]),
    private=toy_nets.held(_data(EVIDENCE.private)),
)
PRIVATE = learn.Data(*IMAGES.private.padded(np.arange(TOPOLOGY.num_devices)))


def _learning(net: Any, rounds: int, replay_weight: float = 0.0) -> LearnSettings:
    learner = learn.learner(
        net,
        batch_size=BATCH,
        learning_rate=0.01,
        total_steps=rounds * STEPS,
        temperature=2.0,
        replay_weight=replay_weight,
    )
    return LearnSettings(rounds, STEPS, learner)


def _hop(student: Any, *teachers: Any, keep_statistics: bool = False) -> HopSettings:
    hop = Hop(
        student,
        teachers,
        NETS.generator,
        generation=Generation(
            shape=toy_nets.SHAPE,
            num_classes=toy_nets.CLASSES,
            latent_size=toy_nets.LATENT,
            batch_size=BATCH,
            bank_size=BANK,
            learning_rate=0.01,
            weights=Weights(
                cross_entropy=1.0, batchnorm=1.0, adversarial=1.0, balance=1.0
            ),
            adversarial_mask="none",
            inner_steps=1,
            batchnorm_momentum=1.0,
            augmentation=NONE,
        ),
        study=Study(
            steps=1,
            total_steps=STEPS,
            learning_rate=0.01,
            temperature=2.0,
            keep_statistics=keep_statistics,
        ),
    )
    return HopSettings(
        *(1, STEPS, DISTILLERS["relay"].build(hop), teachers, label_count_weights),
        keeps_generator=True,
        by_class=True,
    )


def stages() -> tuple[list[Stage], list[Stage]]:
    """The stages of the start, and those of every cycle."""
    (end,) = NETS.end
    return PROTOCOLS["relay_cycle"](
        Settings(
            nets=NETS,
            topology=TOPOLOGY,
            images=IMAGES,
            evidence=EVIDENCE,
            learning={
                "pretrain": _learning(NETS.cloud, 2),
                "local_only": _learning(end, 1),
                "local": _learning(end, 1, replay_weight=1.0),
            },
            hops={
                "down/cloud_edge": _hop(NETS.edge, NETS.cloud),
                "down/edge_end": _hop(end, NETS.edge),
                "up/end_edge": _hop(NETS.edge, end, NETS.edge, keep_statistics=True),
                "up/edge_cloud": _hop(
                    NETS.cloud, NETS.edge, NETS.cloud, keep_statistics=True
                ),
            },
            replay=ReplaySettings(REPLAY, toy_nets.LATENT),
            route=Route((), (), {}, LEGS),
        )
    )


class Passage(NamedTuple):
    """What one stage did in one cycle."""

    stage: Stage
    cycle: int
    before: Parties
    inputs: Any
    state: Any
    after: Parties


def untrained() -> Parties:
    return initialise(
        keys.stream(KEY, "parties"), NETS, TOPOLOGY, num_classes=toy_nets.CLASSES
    )


def history(cycles: int) -> list[Passage]:
    """Runs everything, stage after stage."""
    start, cycle = stages()
    plan = [(0, stage) for stage in start]
    plan += [(number, stage) for number in range(1, cycles + 1) for stage in cycle]
    rounds: dict[str, Any] = {}
    parties, passages = untrained(), []
    for number, stage in plan:
        one = rounds.setdefault(stage.name, compile_round(stage, Mapping("vmap", 1)))
        key = keys.stream(KEY, f"{stage.name}/begin", number)
        state, inputs = stage.begin(parties, key)
        state = jax.tree.map(np.asarray, state)
        for index in range(stage.rounds):
            state, _ = one(state, inputs, keys.moment(keys.data(KEY), number, index))
        after = stage.end(parties, state)
        passages.append(Passage(stage, number, parties, inputs, state, after))
        parties = after
    return passages
