"""Our data-free hops: a unit is one generator step with its student steps.

    python -m benchmarks.ours.hop small|ngf64 [--flops] [--dispatch]

With `--flops`, a unit is a FLOP of the hop's convolutions and matrix products. With
`--dispatch`, each step is a call of a program of its own, instead of several steps in
one; metrics are fetched after as many steps as without it.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import nets
from benchmarks.hops import CLASSES, HOPS, Hop
from benchmarks.ours import products
from benchmarks.ours.federation import NOBODY
from benchmarks.speaker import Speaker
from ecogen_jax import keys, mesh
from ecogen_jax.nets.classifier import classifier
from ecogen_jax.nets.functional import Net
from ecogen_jax.nets.generator import generator
from ecogen_jax.relay.augmentation import Augmentation
from ecogen_jax.relay.distillers import DISTILLERS, base
from ecogen_jax.relay.distillers.base import Generation, Study, Weights
from ecogen_jax.relay.ensemble import Teachers, label_count_weights
from ecogen_jax.relay.hop import Start, as_members, fresh, hop_stage
from ecogen_jax.relay.parties import Parties
from ecogen_jax.relay.settings import HopSettings, Leg
from ecogen_jax.relay.stage import (
    Counter,
    Metrics,
    Stage,
    no_messages,
    one_party,
    party_keys,
)
from ecogen_jax.types import Key, PyTree


def main() -> None:
    """Works as long as it gets requests."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=HOPS)
    parser.add_argument("--flops", action="store_true")
    parser.add_argument("--dispatch", action="store_true")
    options = parser.parse_args()
    mesh.start(1)
    hop = HOPS[options.name]
    calls = hop.steps if options.dispatch else 1
    rounds = Rounds(stage(hop, hop.steps // calls), seeds=(0,))
    work = calls * rounds.flops() if options.flops else hop.steps
    speaker = Speaker("jax", work=work)
    while True:
        mesh.to_host([rounds.call() for _ in range(calls)])
        speaker.tick()


class Rounds:
    """The rounds of a hop as `run/loop.py` runs them, but for several seeds at once."""

    def __init__(self, stage: Stage, seeds: tuple[int, ...], devices: int = 1) -> None:
        self.stage, self.number = stage, 0
        roots = [keys.root(seed) for seed in seeds]
        self._roots = jnp.stack(roots)
        self._compiled = jax.jit(self._of_all_seeds(devices), donate_argnums=0)
        each = [stage.begin(NOBODY, root) for root in roots]
        joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *each)
        self.state, self._inputs = mesh.place(joined, num_devices=devices)

    def _of_all_seeds(self, devices: int) -> Callable[..., Any]:
        mapped = mesh.map_clients(self.stage.one, backend="auto", num_devices=devices)

        def one_round(
            state: PyTree, inputs: PyTree, roots: jax.Array, number: Counter
        ) -> tuple[PyTree, Metrics]:
            each = jax.vmap(lambda root: party_keys(self.stage, root, 1, number))(roots)
            return mapped(state, inputs, each.reshape(-1))

        return one_round

    def one(self) -> None:
        """Runs a round, and fetches its metrics."""
        mesh.to_host(self.call())

    def call(self) -> Metrics:
        """Starts a round; its metrics stay on the device."""
        self.state, metrics = self._compiled(
            self.state, self._inputs, self._roots, self.number
        )
        self.number += 1
        return metrics

    def program(self) -> str:
        """The text of the compiled round."""
        given = (self.state, self._inputs, self._roots, self.number)
        return str(self._compiled.lower(*given).compile().as_text())

    def flops(self) -> float:
        """FLOPs of the convolutions and matrix products of a round, of one seed."""
        one = one_party((self.state, self._inputs))
        return products.flops(self.stage.one, *one, jax.random.key(0))


def stage(hop: Hop, steps: int) -> Stage:
    """The stage of a hop from untrained nets, with a number of steps."""
    teacher, student, maker = all_nets(hop)
    how, study = sizes(hop)
    distiller = DISTILLERS["relay"].build(
        base.Hop(student, (teacher,), maker, generation=how, study=study)
    )

    def start(parties: Parties, key: Key) -> Start:
        del parties
        counts = jnp.ones((1, 1, CLASSES))
        return Start(
            fresh(student, keys.stream(key, "student"), 1),
            fresh(maker, keys.stream(key, "generator"), 1),
            Teachers(
                (as_members(fresh(teacher, keys.stream(key, "teacher"), 1)),),
                jax.vmap(label_count_weights)(counts),
            ),
        )

    def end(parties: Parties, state: PyTree) -> Parties:
        del state
        return parties

    settings = HopSettings(1, steps, distiller, (teacher,), label_count_weights, True)
    leg = Leg("cloud", "edge", returns=False)
    return hop_stage(
        leg, settings, num_parties=1, start=start, end=end, deliveries=no_messages
    )


def all_nets(hop: Hop) -> tuple[Net, Net, Net]:
    """Teacher, student and generator."""
    teacher, student = (
        classifier(name, shape=hop.shape, num_classes=CLASSES)
        for name in (hop.teacher, hop.student)
    )
    if hop.generator == "standard":
        maker = nets.standard_generator(
            hop.shape, CLASSES, latent=hop.latent, width=hop.width
        )
    else:
        maker = generator(
            shape=hop.shape,
            num_classes=CLASSES,
            latent_size=hop.latent,
            width=hop.width,
        )
    return teacher, student, maker


def sizes(hop: Hop) -> tuple[Generation, Study]:
    """How images are made, and how the student is trained."""
    how = Generation(
        shape=hop.shape,
        num_classes=CLASSES,
        latent_size=hop.latent,
        batch_size=hop.batch,
        bank_size=hop.bank,
        learning_rate=hop.generator_rate,
        weights=Weights(
            cross_entropy=1.0,
            batchnorm=hop.batchnorm,
            adversarial=hop.adversarial,
            balance=1.0,
        ),
        adversarial_mask="agree",
        inner_steps=1,
        batchnorm_momentum=1.0,
        augmentation=Augmentation(shift=hop.shift),
    )
    study = Study(
        steps=hop.student_steps,
        total_steps=hop.total,
        learning_rate=hop.rate,
        temperature=hop.temperature,
        keep_statistics=False,
    )
    return how, study


if __name__ == "__main__":
    main()
