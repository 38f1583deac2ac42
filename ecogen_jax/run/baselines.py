"""The baselines of a run: the `baselines` of its summary."""

from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.parties import Parties
from ecogen_jax.relay.stage import Stage
from ecogen_jax.run.evaluate import SPLITS, Evaluator, end_means
from ecogen_jax.run.journal import Journal


def add_local_only(
    journal: Journal,
    evaluator: Evaluator,
    stage: Stage,
    variables: Variables,
    energy_j: float,
) -> None:
    """Adds end devices that trained alone, one kind of net after the other.

    Args:
      journal: gets the baseline `local_only`, and the rows of the devices.
      evaluator: of the experiment.
      stage: that trained them.
      variables: of the devices of the stage's kind, `[devices, ...]`.
      energy_j: energy of the training.
    """
    for split in SPLITS:
        scores = evaluator.ends(variables, split, stage.kind)
        journal.alone.setdefault(split, []).extend(scores.rows(0, "local_only"))
    test, validation = (end_means(journal.alone[split]) for split in SPLITS)
    before = journal.baselines.get("local_only", {"energy_j": 0.0})
    journal.baselines["local_only"] = {
        **test,
        **{f"validation_{name}": value for name, value in validation.items()},
        "energy_j": before["energy_j"] + energy_j,
    }


def add_trained(
    journal: Journal, evaluator: Evaluator, stage: Stage, variables: Variables
) -> None:
    """Adds the student of a stage `baseline/<what>`, `[1, ...]`, under that name."""
    scores = {
        split: evaluator.mean(stage.student, variables, split, stage.kind)
        for split in SPLITS
    }
    name = stage.name.partition("/")[2]
    journal.baselines[name] = {"tier": stage.student, **scores}


def add_ensemble(
    journal: Journal, evaluator: Evaluator, parties: Parties, tier: str
) -> None:
    """Adds the ensemble of a tier's parties, as `ensemble_<tier>`."""
    scores = {split: evaluator.ensemble(parties, tier, split) for split in SPLITS}
    journal.baselines[f"ensemble_{tier}"] = {"tier": tier, **scores}
