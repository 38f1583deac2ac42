"""The files of a run besides its metrics and checkpoints, and reading it back."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from ecogen_jax import config as configs
from ecogen_jax import distributed
from ecogen_jax.config_federated import is_federated
from ecogen_jax.energy import ledger, uncertainty
from ecogen_jax.energy.sci import sci
from ecogen_jax.relay.federated import privacy
from ecogen_jax.relay.parties import Nets, Parties
from ecogen_jax.report import runs
from ecogen_jax.run import writer
from ecogen_jax.run.build import CHOICES, Experiment, build_nets, untrained
from ecogen_jax.run.checkpoint import Checkpoints
from ecogen_jax.run.journal import Journal, inferences
from ecogen_jax.run.measure import HostEnergy

_LOGGER = logging.getLogger(__name__)


class LoadedRun(NamedTuple):
    """A finished run in Python.

    Attributes:
      config: the resolved config.
      nets: the classifier of each tier.
      parties: the state of all parties at the end, every leaf `[parties, ...]`.
      summary: the content of `summary.json`.
    """

    config: ConfigDict
    nets: Nets
    parties: Parties
    summary: dict[str, Any]


@distributed.main_only
def first_files(
    config: ConfigDict,
    experiment: Experiment,
    folder: writer.RunFolder,
    command: Sequence[str],
    start_from: Mapping[str, str] | None,
) -> None:
    """Writes the files that exist before the first round: manifest and partition."""
    synthetic = experiment.dataset.synthetic
    manifest = writer.manifest(config.seed, list(command), synthetic)
    if start_from is not None:
        manifest["start_from"] = dict(start_from)
    writer.write_json(folder.path / "manifest.json", manifest)
    arrays: dict[str, Any] = experiment.partition
    np.savez_compressed(folder.path / "partition.npz", **arrays)


@distributed.main_only
def taken_up(
    config: ConfigDict,
    experiment: Experiment,
    folder: writer.RunFolder,
    command: Sequence[str],
) -> None:
    """Writes the code and package versions of a resume into the manifest.

    Warns where they are not those that it was started with.

    Raises:
      FileNotFoundError: the manifest is missing.
      ValueError: it is damaged.
    """
    path = folder.path / "manifest.json"
    code = ("git_commit", "git_dirty", "versions")
    manifest = runs.read_json(path, *code)
    now = writer.manifest(config.seed, list(command), experiment.dataset.synthetic)
    other = [name for name in code if now[name] != manifest[name]]
    if other:
        _LOGGER.warning(
            "started with another %s; both are in %s", " and ".join(other), path
        )
    again = {name: now[name] for name in (*code, "command", "started")}
    manifest["resumed"] = [*manifest.get("resumed", []), again]
    writer.write_json(path, manifest)


@distributed.main_only
def last_files(
    config: ConfigDict,
    experiment: Experiment,
    folder: writer.RunFolder,
    journal: Journal,
    host: HostEnergy,
) -> None:
    """Writes the results; `summary.json` comes last and marks the run as finished.

    Args:
      config: of the run.
      experiment: built from it.
      folder: of the run.
      journal: all that happened.
      host: energy of the simulating machine, in the last process of a resumed run.
    """
    entries = ledger.from_json(journal.ledger)
    rows = journal.alone.get("test", []) + journal.parties
    pd.DataFrame(rows).to_csv(folder.path / "parties.csv", index=False)
    ledger.to_frame(entries).to_csv(folder.path / "ledger.csv", index=False)
    rates = experiment.rates
    found = uncertainty.analyse(rates, uncertainty.count(entries, rates))
    spread = uncertainty.to_json(found)
    writer.write_json(folder.path / "uncertainty.json", spread)
    summary = {
        "experiment": config.experiment,
        "seed": config.seed,
        "dataset": config.data.name,
        "synthetic_data": experiment.dataset.synthetic,
        "image_shape": list(experiment.dataset.test_images.shape[1:]),
        "num_classes": experiment.dataset.num_classes,
        "phases": journal.phases,
        "hops": journal.hops,
        "baselines": journal.baselines,
        "ledger": ledger.summarise(entries),
        "total": {name: spread[name] for name in ("energy_j", "carbon_g")},
        "sci": sci(
            entries,
            cycles=experiment.cycles,
            inferences=inferences(experiment),
            includes_idle=bool(rates.idle_power),
        ),
        "privacy": privacy_of(config),
        "host_energy": host.summary(),
        "seconds": journal.clock,
        "raw_samples_on_links": journal.raw_samples,
        "resumed": journal.resumed,
    }
    writer.write_json(folder.path / "summary.json", summary)


def privacy_of(config: ConfigDict) -> dict[str, Any] | None:
    """The guarantee of a federation with client-level differential privacy.

    Args:
      config: of the run.

    Returns:
      Epsilon and delta over all rounds, their settings, and the sampling: the rate, how
      devices were drawn, and which sampling `epsilon` assumes; `epsilon_fixed_size`
      uses the real one. None for a run without privacy.
    """
    section = config.federated
    if not is_federated(config) or not section.privacy.clip:
        return None
    devices = config.topology.num_edges * config.topology.devices_per_edge
    rate = section.active / devices
    how = {
        "noise_multiplier": section.privacy.noise_multiplier,
        "rounds": section.rounds,
        "delta": section.privacy.delta,
    }
    return {
        "epsilon": privacy.epsilon(sampling_rate=rate, **how),
        "epsilon_fixed_size": privacy.epsilon_of_fixed_size(
            active=section.active, clients=devices, **how
        ),
        **section.privacy.to_dict(),
        "sampling": {"rate": rate, "drawn": "fixed_size", "accounted_as": "poisson"},
    }


def load_run(path: str | Path) -> LoadedRun:
    """Reads a finished run back: nets, parameters, config and summary.

    Args:
      path: a run folder, `runs/<experiment>/<time>-seed<k>`.

    Returns:
      The run; `run.nets.edge.apply(variables, images, train=False)` with
      `variables` one party of `run.parties.edge` gives its logits.

    Raises:
      FileNotFoundError: the path is no run folder, the run is not finished, or has lost
        a file or its checkpoints.
      ValueError: a file is damaged, or of a version with other fields or values.
      CheckpointError: the last checkpoint cannot be read.
    """
    path = Path(path).expanduser()
    if not writer.is_finished(path):
        raise FileNotFoundError(_unfinished(path))
    config = _read_config(path / "config.json")
    summary = runs.read_json(path / "summary.json", "image_shape", "num_classes")
    shape = tuple(summary["image_shape"])
    nets = build_nets(config, shape, summary["num_classes"])
    with Checkpoints(path / "checkpoints", finished=True) as checkpoints:
        saved = checkpoints.latest()
        if saved is None:
            raise FileNotFoundError(
                f"{path / 'checkpoints'} is empty; put its folders back, or train the "
                "run again"
            )
        abstract = jax.eval_shape(
            lambda: untrained(config, nets, summary["num_classes"])
        )
        parties, _ = checkpoints.restore(saved.step, (abstract, None))
    return LoadedRun(config, nets, parties, summary)


def _unfinished(path: Path) -> str:
    """Why a path is no finished run, and what to do."""
    if (path / "config.json").exists():
        return (
            f"{path} holds no summary.json: the run is not finished; run the same "
            "command again to take it up"
        )
    if not path.is_dir():
        return f"there is no folder {path}; give one of runs/<experiment>/"
    below = sorted(str(file.parent) for file in path.rglob("summary.json"))
    if below:
        return f"{path} is no run but a folder above some; give one: {', '.join(below)}"
    return f"{path} is no run folder, and above none; train a run first"


def _read_config(path: Path) -> ConfigDict:
    tree = runs.read_json(path, "experiment")
    try:
        config = configs.from_dict(tree)
        configs.check(config, CHOICES)
        return config
    except configs.ConfigError as error:  # the error is about the user's own config
        raise ValueError(
            f"{path} has {error.field} = {error.value!r}, which this version refuses; "
            "read it with the version that manifest.json names, or train the run again"
        ) from error
