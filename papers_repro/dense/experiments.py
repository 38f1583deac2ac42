"""The experiments as data: which config, with which overrides, on which seeds."""

import pathlib
from collections.abc import Iterable

from papers_repro.hops import NO_HOP, Experiment, Experiments

HERE = pathlib.Path(__file__).parent

ALPHAS = (0.1, 0.3, 0.5)
"""Dirichlet concentrations of the one-shot partitions, as in DENSE."""

METHODS = {
    "relay": "c1",
    "dense": "dense_oneshot",
    "co_boosting": "co_boosting_oneshot",
}
"""What is compared, and its config."""

# The five devices once more, since a smoke leaves two, too few for three nets.
_THREE_NETS = ("nets.end=cnn_medium,lenet5,mlp", "topology.devices_per_edge=5")


def _one_shot() -> Iterable[Experiment]:
    """C1 and C2: for each alpha and seed the same clients for every method."""
    for table, nets in (("C1", ()), ("C2", _THREE_NETS)):
        for alpha in ALPHAS:
            cell, ask = f"{table}.alpha{alpha}", (f"data.alpha={alpha}", *nets)
            smoke, clients = alpha == ALPHAS[0], f"{cell}.clients"
            yield Experiment(clients, "c1", overrides=(*ask, NO_HOP), in_smoke=smoke)
            for name, config in METHODS.items():
                own = table.lower() if name == "relay" else config
                yield Experiment(
                    *(f"{cell}.{name}", own),
                    overrides=ask,
                    start=clients,
                    in_smoke=smoke,
                )


EXPERIMENTS: Experiments = {one.id: one for one in _one_shot()}
