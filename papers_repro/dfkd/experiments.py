"""The experiments as data: which config, with which overrides, on which seeds.

An experiment that starts from another takes the first senders from that one's run of
the same seed, so that nothing is trained twice and every method has the same teachers.
"""

import csv
import pathlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ecogen_jax.run.sweep import Cell

HERE = pathlib.Path(__file__).parent
BUDGETS = HERE / "budgets.csv"
TUNED = HERE / "tuned.csv"

ALPHAS = (0.1, 0.3, 0.5)
"""Dirichlet concentrations of the one-shot partitions, as in DENSE."""

SHORT_S, LONG_S = 180.0, 600.0
"""Budgets of A4: seconds of training a hop on one core, compilation out."""

DISTILLERS = (
    *("dafl", "zskt", "dfad", "dfq", "deep_inversion", "cmi"),
    *("fast", "nayer", "pre_dfkd", "dense", "co_boosting"),
)
"""Those that `relay` is compared with in A4; each has a config of its name."""

ONE_SHOT = {
    "relay": "c1",
    "dense": "dense_oneshot",
    "co_boosting": "co_boosting_oneshot",
}
"""Methods of C1 and C2, and their configs."""

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

# The five devices once more, since a smoke leaves two, too few for three nets.
_THREE_NETS = ("nets.end=cnn_medium,lenet5,mlp", "topology.devices_per_edge=5")
_NO_HOP = "protocol.route=()"


class Experiment(NamedTuple):
    """Runs that differ in the seed alone.

    Attributes:
        id: names the folder of the runs.
        config: stem of a file in `configs/hops/`.
        seeds: one run each; a seed is also that of the partition.
        overrides: `field=value`.
        dataset: what it runs on.
        start: id of the experiment whose runs hold the first senders, or "".
        budget_s: seconds that the first hop gets, see `Budget`, with the settings that
            were chosen for its distiller, see `tune`; 0 for the config's.
        in_smoke: False where only a number sets it apart from another in the smoke, and
            where its own config has a smoke that takes minutes to compile.
        needs_gpu: True where it would take days on CPU cores.
    """

    id: str
    config: str
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    overrides: tuple[str, ...] = ()
    dataset: str = "mnist"
    start: str = ""
    budget_s: float = 0.0
    in_smoke: bool = True
    needs_gpu: bool = False

    @property
    def distiller(self) -> str:
        """What A4 calls its method: the last part of the id."""
        return self.id.rpartition(".")[2]

    def config_path(self, smoke: bool = False) -> str:
        """The config file, with its argument."""
        return f"configs/hops/{self.config}.py" + (":smoke" if smoke else "")


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
    yield Experiment("A.baselines", "baselines", (0, 1, 2), start=teacher)


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
    """A4: all on one seed, then the best on three."""
    fashion, seeds = "fashion_mnist", (0, 1, 2)
    yield Experiment("teacher.fashion_mnist", "teacher", seeds, dataset=fashion)
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
                "teacher.fashion_mnist",
                budget_s,
                in_smoke=budget_s == SHORT_S,
            )


def _one_shot() -> Iterable[Experiment]:
    """C1 and C2: for each alpha and seed the same clients for every method."""
    for table, nets in (("C1", ()), ("C2", _THREE_NETS)):
        for alpha in ALPHAS:
            cell, ask = f"{table}.alpha{alpha}", (f"data.alpha={alpha}", *nets)
            smoke, clients = alpha == ALPHAS[0], f"{cell}.clients"
            yield Experiment(clients, "c1", overrides=(*ask, _NO_HOP), in_smoke=smoke)
            for name, config in ONE_SHOT.items():
                own = table.lower() if name == "relay" else config
                yield Experiment(
                    *(f"{cell}.{name}", own),
                    overrides=ask,
                    start=clients,
                    in_smoke=smoke,
                )


def _multi_hop() -> Iterable[Experiment]:
    """D1, D2 and D3, each beside what it is compared with."""
    yield Experiment("D1", "d1", start="teacher.mnist")
    yield Experiment("D1.direct", "d1_direct", start="teacher.mnist")
    yield Experiment("D2.clients", "d2", overrides=(_NO_HOP,))
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


_GROUPS = (_single_teacher, _ablations, _fashion, _one_shot, _multi_hop, _on_a_gpu)

EXPERIMENTS: dict[str, Experiment] = {
    one.id: one for group in _GROUPS for one in group()
}
"""By id; one that is started from comes before those that start from it."""


def with_starts(chosen: Iterable[str]) -> list[Experiment]:
    """Adds what the chosen experiments start from.

    Args:
        chosen: ids of `EXPERIMENTS`.

    Returns:
        The experiments, in the order of `EXPERIMENTS`.
    """
    wanted = set(chosen)
    wanted |= {EXPERIMENTS[id].start for id in wanted} - {""}
    return [one for one in EXPERIMENTS.values() if one.id in wanted]


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
        tuned: what `--tune` chose, from `TUNED`.

    Raises:
        ValueError: the experiment needs a budget that was not calibrated, or a setting
            that was not chosen.
    """
    overrides = [f"experiment={one.id}{'_smoke' if smoke else ''}", f"seed={seed}"]
    # One device is one core, so that runs side by side do not slow each other down.
    overrides += ["mesh.num_devices=1", f"run.workdir={workdir}", *one.overrides]
    if not smoke:
        overrides += [f"data.name={one.dataset}", *_sized(one, budgets, tuned)]
    if start_from:
        overrides.append(f"protocol.start_from={start_from}")
    return Cell(one.config_path(smoke), tuple(overrides))


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
        f"down_cloud_edge.{tuned[one.distiller]}",
    )


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
