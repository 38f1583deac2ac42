"""The host's state of a run, saved as JSON with every checkpoint."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from ecogen_jax.energy import ledger
from ecogen_jax.energy.rates import Rates
from ecogen_jax.relay.messages import Delivery, bytes_by_link, crossings_by_link
from ecogen_jax.relay.parties import TIERS
from ecogen_jax.relay.stage import Stage
from ecogen_jax.run.build import Experiment
from ecogen_jax.serve.inference import flops_per_image


@dataclasses.dataclass
class Journal:
    """The host's state of a run: JSON values, saved with every checkpoint.

    Attributes:
      index: position in the plan of the current or next stage.
      round: rounds of that stage that are done.
      saves: checkpoints written so far.
      lines: lines of `metrics.jsonl` that belong to the run so far.
      resumed: restarts from a checkpoint, of which each saved another or the summary.
      raw_samples: raw samples found on links.
      stage_clock: state of the `Clock` of the current stage.
      curve: validation accuracy in the current stage, at each evaluation.
      flops: FLOPs of the current stage, by tier.
      clock: state of the `Clock`.
      phases: the `phases` of `summary.json`.
      hops: the `hops` of `summary.json`.
      baselines: the `baselines` of `summary.json`.
      alone: by split, the rows of end devices that trained alone.
      parties: rows of `parties.csv`.
      ledger: entries as JSON.
    """

    index: int = 0
    round: int = 0
    saves: int = 0
    lines: int = 0
    resumed: int = 0
    raw_samples: int = 0
    stage_clock: dict[str, float] = dataclasses.field(default_factory=dict)
    curve: list[float] = dataclasses.field(default_factory=list)
    flops: dict[str, float] = dataclasses.field(default_factory=dict)
    clock: dict[str, float] = dataclasses.field(default_factory=dict)
    phases: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    hops: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    baselines: dict[str, Any] = dataclasses.field(default_factory=dict)
    alone: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    parties: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    ledger: list[dict[str, Any]] = dataclasses.field(default_factory=list)


def work_entry(
    experiment: Experiment,
    cycle: int,
    stage: Stage,
    *,
    tier: str,
    flops: float,
    host_s: float,
) -> ledger.Entry:
    """The ledger's entry for the work of a tier in a stage."""
    return ledger.compute_entry(
        experiment.rates,
        cycle=cycle,
        phase=stage.phase,
        stage=stage.name,
        tier=tier,
        flops=flops,
        host_s=host_s,
    )


def joules(rates: Rates) -> Callable[[str, float], float]:
    """Makes `joules(tier, flops)`: the energy of `work_entry`, J.

    Results are cached, since rounds repeat the same FLOPs, and a small round takes less
    time than computing its entry.
    """

    @functools.lru_cache(maxsize=256)
    def energy_j(tier: str, flops: float) -> float:
        work = ledger.compute_entry(
            rates, cycle=0, phase="", stage="", tier=tier, flops=flops, host_s=0.0
        )
        return work.energy_j

    return energy_j


def stage_entries(
    experiment: Experiment,
    cycle: int,
    stage: Stage,
    *,
    flops: Mapping[str, float],
    host_s: float,
) -> list[ledger.Entry]:
    """The ledger's entries for the work of a stage, and for waiting parties.

    Parties of a tier work in parallel, one tier after another, and parties of the other
    tiers wait for them. Before the first cycle no party waits, and no party waits for
    transfers.

    Args:
      experiment: of the run.
      cycle: number of the cycle.
      stage: that was run.
      flops: by tier; that of the stage comes first.
      host_s: wall seconds of the simulating machine, assigned to the first tier.
    """
    works = [
        work_entry(
            experiment,
            cycle,
            stage,
            tier=tier,
            flops=done,
            host_s=host_s if tier == stage.tier else 0.0,
        )
        for tier, done in flops.items()
    ]
    if cycle == 0:
        return works
    seconds = {
        work.place: work.device_s / _num_parties(experiment, stage, work.place)
        for work in works
    }
    return works + [
        ledger.idle_entry(
            experiment.rates,
            cycle=cycle,
            phase=stage.phase,
            stage=stage.name,
            tier=tier,
            wait_s=other_s * _num_parties(experiment, stage, tier),
            waits_for=other,
        )
        for tier in experiment.rates.idle_power
        for other, other_s in seconds.items()
        if other != tier
    ]


def _num_parties(experiment: Experiment, stage: Stage, tier: str) -> int:
    """Parties of a tier that work or wait during a stage.

    For the stage's own tier, only the parties that take part.
    """
    if tier == stage.tier:
        return stage.num_parties
    return experiment.topology.size(tier)


def message_entries(
    experiment: Experiment, cycle: int, stage: Stage, deliveries: list[Delivery]
) -> list[ledger.Entry]:
    """The ledger's entries for the messages of a stage, one per link."""
    crossings = crossings_by_link(deliveries)
    return [
        ledger.transfer_entry(
            experiment.rates,
            cycle=cycle,
            phase=stage.phase,
            stage=stage.name,
            link=link,
            up_bytes=up,
            down_bytes=down,
            crossings=crossings[link],
        )
        for link, (up, down) in bytes_by_link(deliveries).items()
    ]


def ends_cycle(experiment: Experiment, number: int) -> bool:
    """Whether task inference follows a stage of the plan: it is the last of its cycle.

    A plan that only trains has its task inference at its end.
    """
    following = experiment.plan[number + 1 :][:1]
    return not following or 0 < experiment.plan[number].cycle < following[0].cycle


def inference_entries(experiment: Experiment, cycle: int) -> list[ledger.Entry]:
    """Task inference of a cycle: every party classifies the whole test split once."""
    return [
        ledger.compute_entry(
            experiment.rates,
            cycle=max(cycle, 1),
            phase="inference",
            stage="inference",
            tier=tier,
            flops=_answer_flops(experiment, tier),
            host_s=0.0,
        )
        for tier in TIERS
    ]


def _answer_flops(experiment: Experiment, tier: str) -> float:
    """FLOPs of classifying every test image once by every party of a tier."""
    dataset, nets = experiment.dataset, experiment.nets.of_tier(tier)
    sizes = [experiment.topology.size(tier)]
    if tier == "end":
        devices_of_kind = experiment.topology.devices_of_kind
        sizes = [len(devices_of_kind(kind, len(nets))) for kind in range(len(nets))]
    each = [flops_per_image(net, dataset.test_images.shape[1:]) for net in nets]
    answers = [len(dataset.test_labels) * size for size in sizes]
    return sum(n * flops for n, flops in zip(answers, each, strict=True))


def inferences(experiment: Experiment) -> int:
    """Images that all parties classify in all cycles, see `inference_entries`."""
    parties = sum(experiment.topology.size(tier) for tier in TIERS)
    return experiment.cycles * parties * len(experiment.dataset.test_labels)
