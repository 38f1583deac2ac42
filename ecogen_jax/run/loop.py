"""The loop: runs the plan round by round, and has all side effects.

The order within a round must not change, so that a resumed run equals an uninterrupted
one: train, evaluate, log; after the last round of a stage, end the stage; then the
checkpoint. So there is no checkpoint between the last round of a stage and its end.
"""

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.progress import Progress

from ecogen_jax import distributed, keys, mesh
from ecogen_jax.config import ConfigError, to_dict
from ecogen_jax.energy import ledger
from ecogen_jax.relay.distillers.base import COLLAPSE
from ecogen_jax.relay.parties import Parties
from ecogen_jax.relay.stage import Stage, compile_round, round_flops
from ecogen_jax.run import baselines, measure, results, together, writer
from ecogen_jax.run import journal as journals
from ecogen_jax.run.build import Experiment, build
from ecogen_jax.run.checkpoint import CheckpointError, Checkpoints
from ecogen_jax.run.clock import Clock
from ecogen_jax.run.diverged import DivergedError, check_round
from ecogen_jax.run.evaluate import Evaluator
from ecogen_jax.run.hops import hop_entry
from ecogen_jax.run.progress import progress, stage_bar
from ecogen_jax.run.samples import add_samples
from ecogen_jax.run.start_from import start
from ecogen_jax.types import PyTree


def run(config: ConfigDict) -> Path:
    """Runs an experiment to its end, or resumes where the same config stopped.

    Args:
      config: as `config.load` gives it.

    Returns:
      The finished run folder.

    Raises:
      ConfigError: the config cannot be built or started from `protocol.start_from`,
        or no folder can be made in `run.workdir`.
      DataUnavailableError: no provider has the dataset.
      DivergedError: a loss is not finite, or a generator has collapsed.
      CheckpointError: a checkpoint cannot be written or read.
      OSError: a file of the run cannot be written.
      JoinError: the processes of the run do not see the same folder.
    """
    experiment = build(config)
    where = (config.run.workdir, config.experiment, config.seed, to_dict(config))
    if next(writer.find_runs(*where, finished=False), None) is None:
        start(config, experiment.parties)  # refuses a wrong run before making a folder
    with (
        writer.open_run(*where) as folder,
        Checkpoints(folder.path / "checkpoints") as checkpoints,
        progress() as bars,
        distributed.ending_at_once(ConfigError, DivergedError),
    ):
        with measure.host() as host:
            one = _Run(config, experiment, folder, checkpoints, bars)
            for cycle, stage in experiment.plan[one.journal.index :]:
                one.stage(cycle, stage)
        one.finish(host)
    return folder.path


class _Run:
    """One process's work on one run: the state between rounds, alike in all processes.

    Attributes:
      parties: the state of all parties, on the host.
      state: of a stage that was resumed in its middle, else None.
      journal: everything else that a checkpoint holds.
    """

    def __init__(
        self,
        config: ConfigDict,
        experiment: Experiment,
        folder: writer.RunFolder,
        checkpoints: Checkpoints,
        bars: Progress,
    ) -> None:
        self.config, self.experiment, self.folder = config, experiment, folder
        self.checkpoints, self.bars = checkpoints, bars
        self.evaluator = Evaluator(experiment)
        self.key = keys.data(experiment.key)
        self.rounds: dict[str, Any] = {}
        self.flops: dict[str, float] = {}
        self.joules = journals.joules(experiment.rates)
        self.auditor = together.Auditor(experiment.dataset)
        self.parties: Parties = mesh.to_host(experiment.parties)
        self.state: PyTree = None
        self.journal = journals.Journal()
        if checkpoints.latest() is None:
            # A run that was killed before its first checkpoint left lines behind.
            writer.truncate_metrics(folder, 0)
            self._start()
        else:
            self._restore()
        self.clock = Clock(**self.journal.clock)
        self.stage_clock = Clock(**self.journal.stage_clock)

    def stage(self, cycle: int, stage: Stage) -> None:
        """Runs what is left of one stage."""
        journal = self.journal
        state, inputs = self._begin(cycle, stage)
        self._before(cycle, stage, state)
        with stage_bar(self.bars, cycle, stage, journal.round) as advance:
            while journal.round < stage.rounds:
                inputs = self._inputs(stage, state, inputs)
                flops = self._flops(stage, state, inputs)
                state, metrics, said = self._round(cycle, stage, state, inputs)
                if stage.together:
                    inputs = ()  # else two cohorts' images would be in memory
                journal.round += 1
                last = journal.round == stage.rounds
                scored = last or journal.round % stage.evaluate_every == 0
                accuracy = self._accuracy(stage, state) if scored else None
                advance(accuracy)
                if accuracy is not None:
                    journal.curve.append(accuracy)
                line = self._line(stage, metrics, accuracy, flops)
                more = self._lines_together(stage, state, said, scored=scored)
                self._append(cycle, stage, line, *more)
                if last:
                    self._end(cycle, stage, together.of_main(stage, state), inputs)
                    self._save(None)
                    return
                if scored:
                    self._save(state)

    def finish(self, host: measure.HostEnergy) -> None:
        """Waits for the last checkpoint and writes the results."""
        self.checkpoints.wait()
        self.journal.clock = self.clock.state()
        results.last_files(
            self.config, self.experiment, self.folder, self.journal, host
        )

    def _before(self, cycle: int, stage: Stage, state: PyTree) -> None:
        """Evaluates what is needed before a stage's first round."""
        if self.journal.round:
            return
        if cycle > 0 and not self.journal.phases:  # no stage before the cycle
            if stage.together:  # all its devices may start with one net
                self.parties = mesh.to_host(stage.end(self.parties, state))
            self._score(cycle, "start")
        if stage.ensemble:
            with self.clock("evaluate"):
                baselines.add_ensemble(
                    self.journal, self.evaluator, self.parties, stage.ensemble
                )

    def _begin(self, cycle: int, stage: Stage) -> tuple[PyTree, PyTree]:
        with self.clock("train"), self.stage_clock("train"):
            key = self._stage_key(cycle, stage)
            state, inputs = stage.begin(self.parties, key)
            if self.state is not None:  # resumed in the middle of the stage
                state, self.state = self.state, None
            if stage.together:
                return together.placed(stage, state, self._num_devices), inputs
            return mesh.place((state, inputs), num_devices=self._num_devices)

    def _inputs(self, stage: Stage, state: PyTree, inputs: PyTree) -> PyTree:
        """The inputs of the next round besides the state."""
        if not stage.together:
            return inputs
        with self.clock("train"), self.stage_clock("train"):
            return together.inputs(stage, self.journal.round, state, self._num_devices)

    def _flops(self, stage: Stage, state: PyTree, inputs: PyTree) -> dict[str, float]:
        """FLOPs of the next round by tier, also added to those of the stage."""
        number, journal = self.journal.round, self.journal
        if stage.together:
            flops = stage.together.flops(number)
        else:
            if stage.name not in self.flops:
                self.flops[stage.name] = round_flops(stage, state, inputs)
            flops = {stage.tier: self.flops[stage.name]}
        for tier, done in flops.items():
            journal.flops[tier] = journal.flops.get(tier, 0.0) + done
        return flops

    def _round(
        self, cycle: int, stage: Stage, state: PyTree, inputs: PyTree
    ) -> tuple[PyTree, dict[str, float], list[PyTree]]:
        if stage.name not in self.rounds:
            self.rounds[stage.name] = compile_round(stage, self.experiment.mapping)
        with self.clock("train"), self.stage_clock("train"):
            number, play = self.journal.round, self.rounds[stage.name]
            if stage.together:
                play = functools.partial(together.played, stage, play, number)
            moment = keys.moment(self.key, cycle, number)
            state, metrics, *said = play(state, inputs, moment)
            metrics = mesh.to_host(metrics)
        saved = self.folder.path / "checkpoints"
        check_round(
            metrics, cycle=cycle, stage=stage, number=number + 1, checkpoints=saved
        )
        # `np.mean` takes four times as long.
        means = {n: float(each.sum()) / each.size for n, each in metrics.items()}
        return state, means, said

    def _accuracy(self, stage: Stage, state: PyTree) -> float:
        with self.clock("evaluate"):
            variables = mesh.to_host(stage.trained(state))
            return self.evaluator.mean(stage.student, variables, "progress", stage.kind)

    def _line(
        self,
        stage: Stage,
        metrics: dict[str, float],
        accuracy: float | None,
        flops: dict[str, float],
    ) -> dict[str, Any]:
        """The log line of a round."""
        line: dict[str, Any] = {"round": self.journal.round, "rounds": stage.rounds}
        if accuracy is not None:
            line[f"{stage.student}/validation_accuracy"] = accuracy
        for tier, done in flops.items():
            line[f"{tier}/flops"] = done
            line[f"{tier}/energy_j"] = self.joules(tier, done)
        losses = {
            together.loss_name(stage, name): value
            for name, value in metrics.items()
            if name != COLLAPSE
        }
        return line | losses

    def _lines_together(
        self, stage: Stage, state: PyTree, said: list[PyTree], *, scored: bool
    ) -> list[dict[str, Any]]:
        """Further log lines of a round that is one program for many parties."""
        if not stage.together:
            return []
        (told,), number = said, self.journal.round
        found = self.auditor.of_round(stage, number, state, told)
        self.journal.raw_samples += found
        lines = together.lines(stage, told, number)
        if scored:
            with self.clock("evaluate"):
                parties = mesh.to_host(stage.end(self.parties, state))
                scores = self.evaluator.everybody(parties, "test").means()
            event = {"event": "scores", "round": number, "split": "test"}
            lines.append(event | scores)
        return lines

    def _end(self, cycle: int, stage: Stage, state: PyTree, inputs: PyTree) -> None:
        """Ends a stage: parties, messages, ledger, samples, test accuracy."""
        journal = self.journal
        flops = {**journal.flops}
        flops[stage.tier] += stage.setup_flops(self.parties)
        self.parties = mesh.to_host(stage.end(self.parties, state))
        seconds = self.stage_clock.state()
        entries = journals.stage_entries(
            self.experiment, cycle, stage, flops=flops, host_s=sum(seconds.values())
        )
        messages = []
        if not stage.is_baseline:
            journal.ledger += ledger.to_json(entries)
            messages = self._deliver(cycle, stage)
        with self.clock("evaluate"):
            self._compare(stage, state, entries[0])
            if stage.is_hop:
                entry = hop_entry(
                    cycle,
                    stage,
                    evaluator=self.evaluator,
                    parties=self.parties,
                    inputs=inputs,
                    curve=journal.curve,
                    seconds=seconds,
                    messages=messages,
                )
                journal.hops.append(entry)
        add_samples(self.folder.path, cycle, stage.name, state)
        journal.index += 1
        journal.round = 0
        journal.curve = []
        journal.flops = {}
        self.stage_clock = Clock()
        self._end_of_phase(cycle, stage)

    def _deliver(self, cycle: int, stage: Stage) -> list[ledger.Entry]:
        """Accounts for the messages of a stage, each audited for raw samples."""
        deliveries = stage.deliveries(self.parties)
        messages = [delivery.messages for delivery in deliveries]
        self.journal.raw_samples += self.auditor.count(messages)
        entries = journals.message_entries(self.experiment, cycle, stage, deliveries)
        self.journal.ledger += ledger.to_json(entries)
        for entry in entries:
            self._append(
                cycle,
                stage,
                {
                    "event": "messages",
                    "link": entry.place,
                    "link/up_bytes": entry.up_bytes,
                    "link/down_bytes": entry.down_bytes,
                    "link/energy_j": entry.energy_j,
                },
            )
        return entries

    def _compare(self, stage: Stage, state: PyTree, work: ledger.Entry) -> None:
        """Evaluates a baseline stage."""
        journal, trained = self.journal, stage.trained(state)
        if stage.phase == "local_only":
            baselines.add_local_only(
                journal, self.evaluator, stage, trained, work.energy_j
            )
        elif stage.phase == "baseline":
            baselines.add_trained(journal, self.evaluator, stage, trained)

    def _end_of_phase(self, cycle: int, stage: Stage) -> None:
        """Evaluates all parties at the end of a phase, and before the next cycle."""
        journal, experiment = self.journal, self.experiment
        following = experiment.plan[journal.index :][:1]
        if following and following[0].stage.phase == stage.phase:
            return
        if cycle > 0:
            self._score(cycle, stage.phase)
        if journals.ends_cycle(experiment, journal.index - 1):
            entries = journals.inference_entries(experiment, cycle)
            journal.ledger += ledger.to_json(entries)
        if following and following[0].cycle > cycle:
            self._score(following[0].cycle, "start")
        if not following and cycle == 0:  # only training
            self._score(1, "start")

    def _score(self, cycle: int, phase: str) -> None:
        with self.clock("evaluate"):
            scores = self.evaluator.everybody(self.parties, "test")
            chosen = self.evaluator.everybody(self.parties, "validation")
        known = [p["phase"] for p in self.journal.phases if p["cycle"] == cycle]
        # A route with two turns has two phases of one direction.
        times = 1 + sum(name.partition("-")[0] == phase for name in known)
        phase = phase if times == 1 else f"{phase}-{times}"
        self.journal.phases.append(
            {
                "cycle": cycle,
                "phase": phase,
                "accuracy": scores.means(),
                "validation_accuracy": chosen.means(),
            }
        )
        self.journal.parties += scores.rows(cycle, phase)

    def _append(self, cycle: int, stage: Stage, *lines: dict[str, Any]) -> None:
        place = {"cycle": cycle, "phase": stage.phase, "stage": stage.name}
        writer.append_metrics(self.folder, [place | line for line in lines])
        self.journal.lines += len(lines)

    def _save(self, state: PyTree) -> None:
        self.journal.saves += 1
        self.journal.clock = self.clock.state()
        self.journal.stage_clock = self.stage_clock.state()
        writer.sync_metrics(self.folder)
        host = dataclasses.asdict(self.journal)
        self.checkpoints.save(self.journal.saves, (self.parties, state), host)

    def _start(self) -> None:
        begun = start(self.config, self.parties)
        self.parties = begun.parties
        self.journal.baselines |= begun.baselines
        results.first_files(
            self.config, self.experiment, self.folder, sys.argv, begun.manifest
        )

    def _restore(self) -> None:
        saved = self.checkpoints.latest()
        assert saved is not None
        self.journal = journals.Journal(**saved.host)
        self.journal.resumed += 1
        try:
            writer.truncate_metrics(self.folder, self.journal.lines)
            results.taken_up(self.config, self.experiment, self.folder, sys.argv)
        except (FileNotFoundError, ValueError) as error:
            raise CheckpointError(str(error)) from error
        state = None
        if self.journal.round:  # only its shapes are needed
            cycle, stage = self.experiment.plan[self.journal.index]
            state, _ = stage.begin(self.parties, self._stage_key(cycle, stage))
        self.parties, self.state = self.checkpoints.restore(
            saved.step, (self.parties, state)
        )

    def _stage_key(self, cycle: int, stage: Stage) -> Any:
        return keys.stream(self.experiment.key, f"{stage.name}/begin", cycle)

    @property
    def _num_devices(self) -> int:
        return self.experiment.mapping.num_devices
