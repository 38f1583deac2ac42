"""What a run would cost, from its config alone: no data, no training, in seconds.

The stages are those of the run, traced on shapes; their entries are made by the same
functions that a run's are. So FLOPs and bytes are the run's own.
"""

import jax
from ml_collections import ConfigDict

from ecogen_jax.energy.ledger import Entry
from ecogen_jax.relay.stage import Stage, round_flops
from ecogen_jax.run import journal as journals
from ecogen_jax.run.build import Experiment, outline


def forecast(config: ConfigDict) -> tuple[Experiment, list[Entry]]:
    """Counts every stage of a config's plan and makes the ledger's entries.

    Args:
      config: as `config.load` gives it.

    Returns:
      The experiment in outline, and the entries that a finished run would have, in
      its order; the host's seconds are 0.

    Raises:
      ConfigError: the config cannot be built.
    """
    experiment = outline(config)
    flops: dict[str, float] = {}
    entries: list[Entry] = []
    for number, (cycle, stage) in enumerate(experiment.plan):
        if stage.phase == "local_only":  # a baseline is no part of the relay's cost
            continue
        if stage.name not in flops:
            flops[stage.name] = _stage_flops(experiment, stage)
        entries += journals.stage_entries(
            experiment, cycle, stage, flops=flops[stage.name], host_s=0.0
        )
        deliveries = stage.deliveries(experiment.parties)
        entries += journals.message_entries(experiment, cycle, stage, deliveries)
        if stage.phase == "up" and _ends_phase(experiment, number):
            entries += journals.inference_entries(experiment, cycle)
    return experiment, entries


def _stage_flops(experiment: Experiment, stage: Stage) -> float:
    """FLOPs of all rounds of a stage, all parties, with what goes before them."""
    parties = experiment.parties
    state, inputs = jax.eval_shape(stage.begin, parties, jax.random.key(0))
    rounds = stage.rounds * round_flops(stage, state, inputs)
    return stage.setup_flops(parties) + rounds


def _ends_phase(experiment: Experiment, number: int) -> bool:
    following = experiment.plan[number + 1 :][:1]
    return not following or following[0].stage.phase != "up"
