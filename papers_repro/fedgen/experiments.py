"""The experiments as data: which config, with which overrides, on which seeds."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ecogen_jax.config_federated import AGGREGATORS
from ecogen_jax.run.sweep import Cell
from papers_repro import trials

HERE = pathlib.Path(__file__).parent
TUNED = HERE / "tuned.csv"
CONFIGS = "configs/federated"

SEEDS = (0, 1, 2)
FIVE_SEEDS = (0, 1, 2, 3, 4)
"""Of B1 to B3, which had three at first."""
DATASETS = ("mnist", "fashion_mnist")
ALPHAS = (0.1, 0.3)
"""Dirichlet concentrations of B4."""

REFERENCE = "fedavg"
"""The protocol whose uplink bytes and client FLOPs are the budgets of B4."""

OURS = "relay_rounds"
"""The protocol that B4 is about."""

# Evaluated so often that a tenth of 60 rounds, and of 30 with twice the bytes, is seen.
_SIZE = ("federated.rounds=60", "federated.evaluate_every=3")


class Protocol(NamedTuple):
    """One that B4 and B5 compare.

    Attributes:
        name: as in the tables; its config is the file of that name.
        size: `field=value`, not in a smoke.
        out: why it is shown but not ranked, or "".
        ours: whether it is never "the best of the others".
        trials: tuning trials on validation images, beside those of `TRIALS`.
    """

    name: str
    size: tuple[str, ...] = _SIZE
    out: str = ""
    ours: bool = False
    trials: int = 0


PROTOCOLS: dict[str, Protocol] = {
    one.name: one
    for one in (
        Protocol("alone"),
        Protocol("fedavg"),
        Protocol("fedprox"),
        Protocol("scaffold"),
        Protocol("fedavgm"),
        Protocol("fedadam"),
        Protocol("hierarchical"),
        Protocol("feddistill"),
        Protocol("fedgen", trials=3),
        Protocol("fedftg"),
        Protocol("dense"),
        Protocol("co_boosting"),
        Protocol("relay_rounds", ours=True, trials=25),
        Protocol(
            "relay_cycle",
            size=(),
            out="its cloud is taught on labelled public images",
            ours=True,
            trials=11,
        ),
        Protocol("feddf", out="needs proxy images: not data-free"),
        Protocol("centralised", out="has all images in one place"),
    )
}
"""By name. A protocol more is one line here: runs, ranking and plot follow."""


_RATES = (1e-3, 1e-2, 1e-1)

TRIALS: trials.Choices = {
    "fedprox": {"federated.fedprox.weight": (0.1, 0.01, 1.0)},
    "fedavgm": {"federated.fedavgm.momentum": (0.9, 0.7, 0.5)},
    "fedadam": {"federated.fedadam.learning_rate": (0.01, 0.003, 0.03)},
    "hierarchical": {"federated.hierarchical.period": (5, 2, 10)},
    "feddistill": {"federated.feddistill.weight": (0.1, 1.0, 10.0)},
    "fedgen": {"federated.fedgen.weight": (10.0, 3.0, 30.0)},
    "fedftg": {"federated.fedftg.learning_rate": (1e-3, 3e-4, 3e-3)},
    "dense": {"up_end_cloud.generator_learning_rate": _RATES},
    "co_boosting": {"up_end_cloud.generator_learning_rate": _RATES},
}
"""What a rival tries: a field of its config, and the values; its config's is first."""


class Experiment(NamedTuple):
    """Runs that differ in the seed alone.

    Attributes:
        id: names the folder of the runs.
        config: the config file.
        dataset: what it runs on.
        overrides: `field=value`, also in a smoke.
        size: `field=value`, not in a smoke.
        seeds: one run each; a seed is also that of the partition.
        in_smoke: False where only a number sets it apart from another in the smoke.
        method: of `TRIALS`, if it runs with the setting that `--tune` chose for it.
    """

    id: str
    config: str
    dataset: str = "mnist"
    overrides: tuple[str, ...] = ()
    size: tuple[str, ...] = ()
    seeds: tuple[int, ...] = SEEDS
    in_smoke: bool = True
    method: str = ""


def cell_id(dataset: str, alpha: float) -> str:
    """Names one comparison of all protocols, such as "B4.mnist.alpha0.1"."""
    return f"B4.{dataset}.alpha{alpha:g}"


CELLS: dict[str, tuple[str, float]] = {
    cell_id(dataset, alpha): (dataset, alpha)
    for dataset in DATASETS
    for alpha in ALPHAS
}
"""Dataset and alpha by comparison."""


WEIGHTS = {name: f"federated.{name}.weight=1.0" for name in ("fedprox", "feddistill")}
"""Of the authors' comparison: `--lamda 1` of their commands, and their `reg_alpha`."""


def _published() -> Iterable[Experiment]:
    """B1 to B3: the published protocol, 200 rounds."""
    for name in ("fedgen", "fedavg", "fedprox", "feddistill", "feddf"):
        yield Experiment(
            f"B1.{name}",
            f"{CONFIGS}/{name}.py",
            size=(WEIGHTS[name],) if name in WEIGHTS else (),
            seeds=FIVE_SEEDS,
            in_smoke=name != "feddf",
        )
    # What explains what is missing? 30,000 images here, 15,000 elsewhere; and a
    # partition that keeps giving to devices that have much already.
    twice, uncapped = f"data.public_fraction={4 / 9}", "data.partition=dirichlet"
    for table, name in (("B1", "fedgen"), ("B3", "fedgen_head")):
        for change, size in (
            ("twice", (twice,)),
            ("uncapped", (uncapped,)),
            ("uncapped_twice", (uncapped, twice)),
        ):
            id, config = f"{table}.{change}", f"{CONFIGS}/{name}.py"
            yield Experiment(id, config, size=size, seeds=FIVE_SEEDS, in_smoke=False)
    for alpha in (0.05, 1.0):
        for name in ("fedgen", "fedavg"):
            yield Experiment(
                f"B2.alpha{alpha:g}.{name}",
                f"{CONFIGS}/{name}.py",
                size=(f"data.alpha={alpha}",),
                seeds=FIVE_SEEDS,
                in_smoke=False,
            )
    for name in ("fedgen", "fedavg"):
        yield Experiment(f"B3.{name}", f"{CONFIGS}/{name}_head.py", seeds=FIVE_SEEDS)


def _flipped() -> Iterable[Experiment]:
    """B6: FedAvg where a fifth of the devices flip their labels, or none does."""
    for partition in ("iid", "dirichlet_capped"):
        for name in AGGREGATORS:
            alike = (f"data.partition={partition}", f"federated.aggregator={name}")
            for flips, more in (("", ()), (".honest", ("federated.faults.flip=0.0",))):
                yield Experiment(
                    f"B6.{partition}.{name}{flips}",
                    f"{CONFIGS}/fedavg_flipped.py",
                    overrides=(*alike, *more),
                    in_smoke=partition == "iid",
                )


def _compared() -> Iterable[Experiment]:
    """B4 and B5: all protocols on the same devices, rivals as `--tune` chose."""
    for cell, (dataset, alpha) in CELLS.items():
        for name, one in PROTOCOLS.items():
            yield Experiment(
                f"{cell}.{name}",
                f"{CONFIGS}/{name}.py",
                dataset,
                overrides=(f"data.alpha={alpha}",),
                size=one.size,
                in_smoke=cell == next(iter(CELLS)),
                method=name if name in TRIALS else "",
            )


EXPERIMENTS: dict[str, Experiment] = {
    one.id: one for group in (_published, _compared, _flipped) for one in group()
}
"""By id, in the order in which they are run."""


def num_trials(protocol: str) -> int:
    """Tuning trials of a protocol on validation images, see the README."""
    values = [len(each) for each in TRIALS.get(protocol, {}).values()]
    return PROTOCOLS[protocol].trials + sum(values)


def rivals(id: str) -> list[str]:
    """The ranked protocols beside ours, in the comparison that an experiment is of."""
    cell = id.rpartition(".")[0]
    ranked = [one for one in PROTOCOLS.values() if not one.out and not one.ours]
    return [f"{cell}.{one.name}" for one in ranked]


def reference(id: str) -> str:
    """The experiment that an experiment of B4 takes its budgets from."""
    return f"{id.rpartition('.')[0]}.{REFERENCE}"


def cell(
    one: Experiment,
    seed: int,
    *,
    workdir: str,
    smoke: bool = False,
    tuned: Mapping[str, str],
) -> Cell:
    """Returns the config and the overrides of one run.

    Args:
        one: the experiment.
        seed: of the run.
        workdir: the folder of all runs.
        smoke: tiny, on generated data: neither dataset nor size is set.
        tuned: what `--tune` chose, from `TUNED`.

    Raises:
        ValueError: the experiment needs a setting that was not chosen.
    """
    overrides = [f"experiment={one.id}{'_smoke' if smoke else ''}", f"seed={seed}"]
    # One device is one core, so that runs side by side do not slow each other down.
    overrides += ["mesh.num_devices=1", f"run.workdir={workdir}", *one.overrides]
    if not smoke:
        overrides += [f"data.name={one.dataset}", *one.size]
        if one.method and one.method not in tuned:
            raise ValueError(
                f"{one.id} has no setting in {TUNED.name}; run with --tune first"
            )
        overrides += [tuned[one.method]] if one.method else []
    return Cell(one.config + (":smoke" if smoke else ""), tuple(overrides))
