"""What the host remembers of a run, saved as JSON with every checkpoint."""

import dataclasses
from typing import Any

from ecogen_jax.energy import ledger
from ecogen_jax.relay.messages import Delivery, bytes_by_link
from ecogen_jax.relay.parties import TIERS
from ecogen_jax.relay.stage import Stage
from ecogen_jax.run.build import Experiment
from ecogen_jax.serve.inference import flops_per_image


@dataclasses.dataclass
class Journal:
    """What the host remembers of a run: JSON values, saved with every checkpoint.

    Attributes:
      index: position in the plan of the stage that comes next or is under way.
      round: rounds of that stage that are done.
      saves: checkpoints written so far.
      lines: lines of `metrics.jsonl` that belong to the run so far.
      resumed: how often the run was taken up again.
      raw_samples: raw samples found on links.
      stage_host_s: host seconds of the stage under way.
      clock: state of the `Clock`.
      phases: the `phases` of `summary.json`.
      baselines: the `baselines` of `summary.json`.
      parties: rows of `parties.csv`.
      ledger: entries as JSON.
    """

    index: int = 0
    round: int = 0
    saves: int = 0
    lines: int = 0
    resumed: int = 0
    raw_samples: int = 0
    stage_host_s: float = 0.0
    clock: dict[str, float] = dataclasses.field(default_factory=dict)
    phases: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    baselines: dict[str, Any] = dataclasses.field(default_factory=dict)
    parties: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    ledger: list[dict[str, Any]] = dataclasses.field(default_factory=list)


def work_entry(
    experiment: Experiment, cycle: int, stage: Stage, *, flops: float, host_s: float
) -> ledger.Entry:
    """The ledger's entry for what a stage computed."""
    return ledger.compute_entry(
        experiment.rates,
        cycle=cycle,
        phase=stage.phase,
        stage=stage.name,
        tier=stage.tier,
        flops=flops,
        host_s=host_s,
    )


def stage_entries(
    experiment: Experiment, cycle: int, stage: Stage, *, flops: float, host_s: float
) -> list[ledger.Entry]:
    """The ledger's entries for what a stage computed, and for who waited meanwhile.

    Parties of the working tier work side by side, those of the others wait for them.
    Nobody is reserved before the first cycle, and transfers are waited for by none.
    """
    work = work_entry(experiment, cycle, stage, flops=flops, host_s=host_s)
    rates, topology = experiment.rates, experiment.topology
    waiting = [tier for tier in rates.idle_power if tier != stage.tier and cycle > 0]
    stage_s = work.device_s / stage.num_parties
    return [work] + [
        ledger.idle_entry(
            rates,
            cycle=cycle,
            phase=stage.phase,
            stage=stage.name,
            tier=tier,
            wait_s=stage_s * topology.size(tier),
        )
        for tier in waiting
    ]


def message_entries(
    experiment: Experiment, cycle: int, stage: Stage, deliveries: list[Delivery]
) -> list[ledger.Entry]:
    """The ledger's entries for what a stage sent, one a link."""
    return [
        ledger.transfer_entry(
            experiment.rates,
            cycle=cycle,
            phase=stage.phase,
            stage=stage.name,
            link=link,
            up_bytes=up,
            down_bytes=down,
        )
        for link, (up, down) in bytes_by_link(deliveries).items()
    ]


def inference_entries(experiment: Experiment, cycle: int) -> list[ledger.Entry]:
    """The task of a cycle: every party answers the whole test split once."""
    dataset = experiment.dataset
    entries = []
    for tier in TIERS:
        answers = len(dataset.test_labels) * experiment.topology.size(tier)
        net = getattr(experiment.nets, tier)
        flops = answers * flops_per_image(net, dataset.test_images.shape[1:])
        entries.append(
            ledger.compute_entry(
                experiment.rates,
                cycle=cycle,
                phase="inference",
                stage="inference",
                tier=tier,
                flops=flops,
                host_s=0.0,
            )
        )
    return entries


def inferences(experiment: Experiment) -> int:
    """Images that all parties answer in all cycles, see `inference_entries`."""
    parties = sum(experiment.topology.size(tier) for tier in TIERS)
    return experiment.cycles * parties * len(experiment.dataset.test_labels)
