"""The experiments as data: which config, with which overrides, on which seeds."""

import csv
import pathlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ecogen_jax.run.sweep import Cell
from papers_repro import hops, trials
from papers_repro.hops import NO_HOP, Experiment, Experiments

HERE = pathlib.Path(__file__).parent
BUDGETS = HERE / "budgets.csv"
TUNED = HERE / "tuned.csv"
REFINED = HERE / "refined.csv"

SHORT_S, LONG_S = 180.0, 600.0
"""Budgets of A4: seconds of training a hop on one core, compilation out."""

DISTILLERS = (
    *("dafl", "zskt", "dfad", "dfq", "deep_inversion", "cmi"),
    *("fast", "nayer", "pre_dfkd", "dense", "co_boosting"),
)
"""Those that `relay` is compared with in A4; each has a config of its name."""

ABLATIONS = {
    "no_statistics": "weights.batchnorm=0.0",
    "no_adversary": "weights.adversarial=0.0",
    "any_adversary": "adversarial_mask=none",
    "no_label": "weights.cross_entropy=0.0",
    "no_balance": "weights.balance=0.0",
    "no_shift": "shift=0",
    "no_bank": "bank_size=128",
    "cold": "temperature=1.0",
}
"""What A2's hop goes without, one part at a time, and the field that takes it away."""


class Budget(NamedTuple):
    """How many rounds a distiller gets for a number of seconds."""

    seconds_per_round: float
    steps: int
    rounds: int


def _single_teacher() -> Iterable[Experiment]:
    """A1, A2, and what a student of A1's budget learns without a hop."""
    teacher = "teacher.mnist"
    yield Experiment(teacher, "teacher")
    yield Experiment("A1", "a1", start=teacher)
    yield Experiment("A2", "a2", start=teacher)
    yield Experiment("A.baselines", "baselines", start=teacher)


def _ablations() -> Iterable[Experiment]:
    """A2 without one of its parts, on fewer seeds."""
    for name, change in ABLATIONS.items():
        yield Experiment(
            f"ablation.{name}",
            "a2",
            (0, 1, 2),
            (f"down_cloud_edge.{change}",),
            start="teacher.mnist",
        )


def _fashion() -> Iterable[Experiment]:
    """A4: all on one seed, then the best on three, and ours without a part of it."""
    fashion, seeds, teacher = "fashion_mnist", (0, 1, 2), "teacher.fashion_mnist"
    yield Experiment(teacher, "teacher", seeds, dataset=fashion)
    # No row of the long ones asks for a student on real labels.
    sizes = (
        ("A4", (0,), SHORT_S, "('student', 'kd')"),
        ("A4.long", seeds, LONG_S, "('kd',)"),
    )
    for prefix, of_size, budget_s, baselines in sizes:
        for name in ("relay", *DISTILLERS):
            real = (f"protocol.baselines={baselines}",)
            yield Experiment(
                f"{prefix}.{name}",
                "a4" if name == "relay" else name,
                of_size,
                real if name == "relay" else (),
                fashion,
                teacher,
                budget_s,
                in_smoke=budget_s == SHORT_S,
            )
    ours = ("A4.one_class.relay", "a4", seeds, ("down_cloud_edge.two_classes=0.0",))
    yield Experiment(*ours, fashion, teacher, LONG_S, in_smoke=False)


def _multi_hop() -> Iterable[Experiment]:
    """D1, D2 and D3, each beside what it is compared with."""
    yield Experiment("D1", "d1", start="teacher.mnist")
    yield Experiment("D1.direct", "d1_direct", start="teacher.mnist")
    yield Experiment("D2.clients", "d2", overrides=(NO_HOP,))
    yield Experiment("D2", "d2", start="D2.clients")
    yield Experiment("D2.flat", "d2_flat", start="D2.clients")
    yield Experiment("D3", "d3", start="D2.clients")


def _on_a_gpu() -> Iterable[Experiment]:
    """The pair of nets that the field reports on."""
    yield Experiment(
        *("cifar10", "cifar10", (0,)),
        dataset="cifar10",
        in_smoke=False,
        needs_gpu=True,
    )


_GROUPS = (_single_teacher, _ablations, _fashion, _multi_hop, _on_a_gpu)

EXPERIMENTS: Experiments = {one.id: one for group in _GROUPS for one in group()}


def cell(
    one: Experiment,
    seed: int,
    *,
    workdir: str,
    start_from: str = "",
    smoke: bool = False,
    budgets: Mapping[tuple[str, float], Budget],
    tuned: Mapping[str, str],
) -> Cell:
    """Returns the config and the overrides of one run.

    Args:
        one: the experiment.
        seed: of the run.
        workdir: the folder of all runs.
        start_from: the run folder with the first senders.
        smoke: tiny, on generated data: neither dataset nor budget is set.
        budgets: from `read_budgets`.
        tuned: what `--tune` and `--refine` chose, from `read_tuned`.

    Raises:
        ValueError: the experiment needs a budget that was not calibrated, or a setting
            that was not chosen.
    """
    return hops.cell(
        one,
        seed,
        workdir=workdir,
        start_from=start_from,
        smoke=smoke,
        size=() if smoke else _sized(one, budgets, tuned),
    )


def _sized(
    one: Experiment,
    budgets: Mapping[tuple[str, float], Budget],
    tuned: Mapping[str, str],
) -> tuple[str, ...]:
    """Rounds, steps and setting of the first hop, where a budget is asked for."""
    if not one.budget_s:
        return ()
    if (one.distiller, one.budget_s) not in budgets:
        raise ValueError(
            f"{one.id} has no budget in {BUDGETS.name}; run with --calibrate first"
        )
    if one.distiller not in tuned:
        raise ValueError(
            f"{one.id} has no setting in {TUNED.name}; run with --tune first"
        )
    budget = budgets[one.distiller, one.budget_s]
    return (
        f"down_cloud_edge.rounds={budget.rounds}",
        f"down_cloud_edge.steps={budget.steps}",
        *overrides(tuned[one.distiller]),
    )


def overrides(change: str) -> tuple[str, ...]:
    """A change of the first hop's fields, as overrides of a config."""
    return tuple(f"down_cloud_edge.{one}" for one in change.split())


def read_tuned() -> dict[str, str]:
    """Reads what `--tune` chose, and `--refine` beyond it: the change by method.

    Raises:
        ValueError: `--refine` began from other settings than `--tune` has chosen now.
    """
    tuned, refined = trials.chosen(TUNED), trials.chosen(REFINED)
    before, began = trials.chosen(REFINED, "before"), trials.first(REFINED, "before")
    for method, change in began.items():
        if tuned.get(method) != change:
            raise ValueError(
                f"{REFINED.name} began {method} from {change}, but {TUNED.name} has "
                f"{tuned.get(method)}; run with --refine, or delete {REFINED.name}"
            )
    return {
        method: trials.joined(before.get(method, change), refined.get(method, ""))
        for method, change in tuned.items()
    }


def read_budgets(path: pathlib.Path = BUDGETS) -> dict[tuple[str, float], Budget]:
    """Reads what `--calibrate` wrote, by distiller and seconds; {} without a file."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8") as file:
        return {
            (row["distiller"], float(row["budget_s"])): Budget(
                float(row["seconds_per_round"]), int(row["steps"]), int(row["rounds"])
            )
            for row in csv.DictReader(file)
        }
