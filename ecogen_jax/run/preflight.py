"""Forecast of a run's cost from its config: no data, no training, in seconds.

The stages of the run are traced on shapes, and the same functions as in a run make the
ledger entries. So FLOPs and bytes are exactly those of the run.
"""

import jax
from ml_collections import ConfigDict

from ecogen_jax.energy.ledger import Entry
from ecogen_jax.relay.messages import Delivery, Message
from ecogen_jax.relay.parties import Parties
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
    flops: dict[str, dict[str, float]] = {}
    entries: list[Entry] = []
    for number, (cycle, stage) in enumerate(experiment.plan):
        if stage.is_baseline:  # not part of the relay's cost
            continue
        if stage.name not in flops:
            flops[stage.name] = _stage_flops(experiment, stage)
        entries += journals.stage_entries(
            experiment, cycle, stage, flops=flops[stage.name], host_s=0.0
        )
        deliveries = _deliveries(experiment, stage)
        entries += journals.message_entries(experiment, cycle, stage, deliveries)
        if journals.ends_cycle(experiment, number):
            entries += journals.inference_entries(experiment, cycle)
    return experiment, entries


def _stage_flops(experiment: Experiment, stage: Stage) -> dict[str, float]:
    """FLOPs of all rounds of a stage by tier, with what goes before them."""
    parties = experiment.parties
    if stage.together:
        total: dict[str, float] = {}
        for number in range(stage.rounds):
            for tier, done in stage.together.flops(number).items():
                total[tier] = total.get(tier, 0.0) + done
        return total
    state, inputs = jax.eval_shape(stage.begin, parties, jax.random.key(0))
    rounds = stage.rounds * round_flops(stage, state, inputs)
    return {stage.tier: stage.setup_flops(parties) + rounds}


def _deliveries(experiment: Experiment, stage: Stage) -> list[Delivery]:
    """The stage's deliveries, their messages as shapes."""
    made: list[Delivery] = []

    def messages(parties: Parties) -> list[Message]:
        made.extend(stage.deliveries(parties))
        return [delivery.messages for delivery in made]

    shapes = jax.eval_shape(messages, experiment.parties)
    return [
        delivery._replace(messages=message)
        for delivery, message in zip(made, shapes, strict=True)
    ]
