"""Routes of toy nets, whose distiller is written by hand: it only marks its student."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ecogen_jax import keys
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay import bank, learn
from ecogen_jax.relay.distillers.base import Distiller, HopState
from ecogen_jax.relay.ensemble import label_count_weights
from ecogen_jax.relay.parties import Nets, Parties, Topology, initialise
from ecogen_jax.relay.protocols import PROTOCOLS
from ecogen_jax.relay.settings import (
    Evidence,
    HopSettings,
    Images,
    LearnSettings,
    Leg,
    ReplaySettings,
    Route,
    Settings,
)
from ecogen_jax.relay.stage import Mapping, Stage, compile_round
from tests import toy_nets

PUBLIC = np.array([6, 2, 0])  # the cloud has never seen class 2
PRIVATE = np.array([[4, 0, 0], [2, 2, 0], [0, 0, 5], [0, 6, 0], [1, 0, 3], [0, 2, 2]])
STEPS, MARK = 2, 0.5
KEY = keys.root(3)


def distiller() -> Distiller:
    """Adds `MARK` to every bias of the student and every number of the generator."""

    def init(student, generator, teachers, key):
        return HopState(
            student=student,
            student_optimizer=(),
            generator=generator,
            generator_optimizer=(),
            bank=bank.empty(1, toy_nets.SHAPE, toy_nets.CLASSES),
            moments=(),
            extra=jax.random.key_data(key),
            one_class_steps=jnp.zeros((), jnp.int32),
        )

    def step(state, teachers, key):
        params = state.student.params
        taught = Variables(
            params | {"bias": params["bias"] + MARK / STEPS}, state.student.stats
        )
        painted = jax.tree.map(lambda a: a + MARK / STEPS, state.generator)
        return replace(state, student=taught, generator=painted), {}

    return Distiller(init, step)


def data(counts: np.ndarray) -> learn.Data:
    """Images whose bytes tell whose they are."""
    length = counts.sum(axis=1).max()
    owner = np.arange(len(counts), dtype=np.uint8).reshape(-1, 1, 1, 1, 1)
    labels = np.zeros((len(counts), length), np.int32)
    for party, row in enumerate(counts):
        labels[party, : row.sum()] = np.repeat(np.arange(len(row)), row)
    images = np.broadcast_to(40 * owner, (len(counts), length, *toy_nets.SHAPE))
    return learn.Data(images, labels, counts.sum(axis=1).astype(np.int32))


def private() -> learn.Data:
    """What all devices train on, as they have it."""
    everybody = np.arange(len(PRIVATE))
    return learn.Data(*toy_nets.held(data(PRIVATE)).padded(everybody))


def legs(*route: str, returns: tuple[str, ...] = ()) -> tuple[Leg, ...]:
    """The legs of a route; those of `returns` come back to a tier that knows."""
    tiers = [entry.split(">") for entry in route]
    return tuple(
        Leg(sender, receiver, returns=entry in returns)
        for entry, (sender, receiver) in zip(route, tiers, strict=True)
    )


def settings(
    route: tuple[Leg, ...],
    *,
    edges: int = 2,
    nets: Nets | None = None,
    start: tuple[str, ...] = (),
    weigh: Any = label_count_weights,
    keeps_generator: bool = True,
    by_class: bool = False,
    baselines: tuple[str, ...] = (),
    images: dict[str, np.ndarray] | None = None,
) -> Settings:
    """Six devices below one or two edges, and tiny sizes."""
    nets = nets or toy_nets.nets()
    trained = (nets.cloud,) if start == ("pretrain",) else nets.end
    learners = dict(zip(start, trained, strict=False))
    if baselines:
        learners["baseline"] = nets.of_tier(route[0].receiver)[0]
    learning = {
        name: LearnSettings(
            1,
            STEPS,
            learn.learner(
                net,
                batch_size=4,
                learning_rate=0.01,
                total_steps=STEPS,
                temperature=2.0,
                replay_weight=1.0,
            ),
        )
        for name, net in learners.items()
    }
    hop = HopSettings(1, STEPS, distiller(), (), weigh, keeps_generator, by_class)
    return Settings(
        nets=nets,
        topology=Topology(edges, len(PRIVATE) // edges),
        images=Images(data(PUBLIC[None]), toy_nets.held(data(PRIVATE))),
        evidence=Evidence(PUBLIC, PRIVATE),
        learning=learning,
        hops={leg.stage: hop for leg in route},
        replay=ReplaySettings(1, toy_nets.LATENT),
        route=Route(start, baselines, images or {}, route),
    )


class Passage(NamedTuple):
    """What one stage did."""

    stage: Stage
    before: Parties
    begun: Any
    inputs: Any
    state: Any
    after: Parties

    @property
    def sent(self):
        return self.stage.deliveries(self.after)


def run(settings: Settings) -> dict[str, Passage]:
    """Runs all stages of a route, one after the other."""
    start, hops = PROTOCOLS["hops"](settings)
    parties = initialise(
        keys.stream(KEY, "parties"),
        settings.nets,
        settings.topology,
        num_classes=toy_nets.CLASSES,
    )
    passages = {}
    for stage in (*start, *hops):
        begun, inputs = stage.begin(parties, keys.stream(KEY, stage.name))
        begun = jax.tree.map(np.asarray, begun)
        one = compile_round(stage, Mapping("vmap", 1))
        state, _ = one(begun, inputs, keys.moment(keys.data(KEY), 1, 0))
        after = stage.end(parties, state)
        passages[stage.name] = Passage(stage, parties, begun, inputs, state, after)
        parties = after
    return passages
