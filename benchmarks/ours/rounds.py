"""Our federated rounds: a unit is one round.

    python -m benchmarks.ours.rounds TASK|fedgen [--devices 2] [--edges 5] [--told]
        [--backend vmap] [--chunk 5]

A round is as in a run: the data of its devices are copied to the JAX devices, one
compiled program runs, and its metrics are fetched. With `--told`, it also has faults,
computes joules, audits messages and writes its log lines: everything that a run does
except evaluation and checkpoints.
"""

import argparse
import tempfile
from typing import Any

from benchmarks.ours import federation
from benchmarks.speaker import Speaker
from ecogen_jax import keys, mesh
from ecogen_jax.data import sources
from ecogen_jax.energy import rates
from ecogen_jax.relay.federated import streaming
from ecogen_jax.relay.parties import TIERS
from ecogen_jax.relay.stage import Mapping, compile_round
from ecogen_jax.run import diverged, journal, together, writer
from ecogen_jax.run.command import positive
from ecogen_jax.types import PyTree

CYCLE = 1


def main() -> None:
    """Works as long as it gets requests."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what")
    parser.add_argument("--devices", type=positive, default=1)
    parser.add_argument("--edges", type=positive, default=1)
    parser.add_argument("--told", action="store_true")
    parser.add_argument("--backend", choices=mesh.BACKENDS, default="auto")
    parser.add_argument("--chunk", type=positive, default=0)
    options = parser.parse_args()
    mesh.start(options.devices)
    mapping = Mapping(options.backend, options.devices, options.chunk)
    if options.what == "fedgen":
        made = federation.fedgen(mapping)
    else:
        made = federation.of_task(
            options.what, mapping, edges=options.edges, faulty=options.told
        )
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-run-") as place,
        writer.open_run(place, "benchmark", 0, {}) as folder,
    ):
        rounds = Told(made, folder)
        one = rounds.one_told if options.told else rounds.one
        speaker = Speaker("jax")
        while True:
            one()
            speaker.tick()


class Rounds:
    """The rounds of a federation, as `run/loop.py` runs them.

    Attributes:
        stage: of the federation.
        state: between rounds.
        said: in the last round.
        number: of the round that comes next; the federation begins anew at the end of
            its schedule.
    """

    def __init__(self, made: federation.Made) -> None:
        assert made.stage.together is not None
        self.stage, self.number = made.stage, 0
        self.said: PyTree = None
        self._num_devices = made.mapping.num_devices
        self._key = keys.root(0)
        self._key_data = keys.data(self._key)
        self._compiled: Any = compile_round(*made)  # jitted: it is `together`
        self._begin()

    def _begin(self) -> None:
        begin = keys.stream(self._key, "begin")
        state, _ = self.stage.begin(federation.NOBODY, begin)
        self.state: PyTree = together.placed(self.stage, state, self._num_devices)

    def inputs(self) -> PyTree:
        """The devices of the next round, and their data."""
        if self.number == self.stage.rounds:
            # Messages of another round than the state's would all be refused.
            self.number = 0
            self._begin()
        return together.inputs(self.stage, self.number, self.state, self._num_devices)

    def one(self) -> dict[str, Any]:
        """Runs a round, and gives back its metrics."""
        return self.run(self.inputs())

    def program(self) -> str:
        """The text of the compiled round."""
        moment = keys.moment(self._key_data, CYCLE, self.number)
        given = (streaming.core(self.state), self.inputs(), moment)
        return str(self._compiled.lower(*given).compile().as_text())

    def run(self, inputs: PyTree) -> dict[str, Any]:
        """Runs a round on its inputs."""
        moment = keys.moment(self._key_data, CYCLE, self.number)
        self.state, metrics, self.said = together.played(
            self.stage, self._compiled, self.number, self.state, inputs, moment
        )
        self.number += 1
        return mesh.to_host(metrics)


class Told(Rounds):
    """Rounds with all that a run tells of them."""

    def __init__(self, made: federation.Made, folder: writer.RunFolder) -> None:
        super().__init__(made)
        self._folder = folder
        self._auditor = together.Auditor(sources.outline("mnist"))
        constants = rates.rates(
            devices=dict.fromkeys(TIERS, "jetson_nano"),
            links=dict.fromkeys(rates.LINKS, "wifi"),
            country="World",
            contracted_share=dict.fromkeys(TIERS, 0.0),
        )
        self._joules = journal.joules(constants)

    def one_told(self) -> None:
        """Runs a round, and writes down what it came to."""
        inputs = self.inputs()
        stage, number = self.stage, self.number
        assert stage.together is not None
        flops = stage.together.flops(number)
        metrics = self.run(inputs)
        diverged.check_round(
            metrics,
            cycle=CYCLE,
            stage=stage,
            number=number + 1,
            checkpoints=self._folder.path / "checkpoints",
        )
        line: dict[str, Any] = {"round": number + 1, "rounds": stage.rounds}
        for tier, done in flops.items():
            line[f"{tier}/flops"] = done
            line[f"{tier}/energy_j"] = self._joules(tier, done)
        for name, each in metrics.items():
            line[f"end/{name}_loss"] = float(each.sum()) / each.size
        self._auditor.of_round(stage, number + 1, self.state, self.said)
        place = {"cycle": CYCLE, "phase": stage.phase, "stage": stage.name}
        lines = [line, *together.lines(stage, self.said, number + 1)]
        writer.append_metrics(self._folder, [place | each for each in lines])


if __name__ == "__main__":
    main()
