"""Makes finished federations with made-up numbers, for the tests of their tables."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ecogen_jax.report import runs
from tests.run_folders import make_run

CELL = "B4.fashion_mnist.alpha0.1"
COLUMNS = ("cycle", "phase", "stage", "place", "flops", "up_bytes", "energy_j")
ROUNDS = 10


def federation(
    workdir: Path,
    experiment: str,
    seen: Mapping[int, float],
    *,
    up: int = 100,
    flops: float = 1000.0,
    whole: float = 0.5,
    dataset: str = "fashion_mnist",
    active: int = 1,
) -> list[runs.Run]:
    """One run a seed of ten rounds; `seen[seed]` is the last accuracy on seen labels.

    It grows by a tenth of that in a round. Devices send `up` bytes a round, and are
    sent twice as many.
    """
    for seed, last in seen.items():
        section = {
            "protocol": {"name": experiment.removesuffix("_smoke").rpartition(".")[2]},
            "federated": {"rounds": ROUNDS, "active": active},
        }
        scores = {"end": whole, "end_own": 0.9, "end_own_worst": 0.7, "cloud": 0.5}
        phases = [
            {"cycle": 1, "phase": phase, "accuracy": scores | {"end_seen": value}}
            for phase, value in (("start", 0.0), ("federated", last))
        ]
        costs = {"up_bytes": ROUNDS * up, "down_bytes": 2 * ROUNDS * up}
        ledger = {"link": {"edge_end": costs}}
        path = make_run(
            workdir,
            experiment,
            seed,
            section,
            dataset=dataset,
            phases=phases,
            ledger=ledger,
        )
        _write_lines(path, last, scores, up, flops)
        write_ledger(
            path,
            (1, "federated", "federated", "end", ROUNDS * flops, 0, 50.0),
            (1, "federated", "federated", "edge_end", 0.0, ROUNDS * up, 400.0),
            (1, "federated", "federated", "cloud_edge", 0.0, ROUNDS * up, 50.0),
            (1, "inference", "inference", "end", 1e9, 0, 1e9),
        )
    return [runs.read(path) for path in runs.find([workdir / experiment])]


def _write_lines(
    path: Path, last: float, scores: Mapping[str, float], up: int, flops: float
) -> None:
    lines: list[dict[str, Any]] = []
    for number in range(1, ROUNDS + 1):
        seen = last * number / ROUNDS
        sent = {"link/up_bytes": up, "link/down_bytes": 2 * up}
        lines += [
            {"round": number, "end/flops": flops},
            {"round": number, "event": "round", **sent},
            {"round": number, "event": "scores", **scores, "end_seen": seen},
        ]
    lines.append({"event": "messages", "link/up_bytes": ROUNDS * up})
    whole = [{"stage": "federated"} | line for line in lines]
    (path / "metrics.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in whole))


def write_ledger(path: Path, *rows: tuple[Any, ...]) -> None:
    """Writes entries of `COLUMNS`; a joule is a milligram, half of it by the market."""
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    grams = frame["energy_j"] / 1000
    frame = frame.assign(carbon_location_g=grams, carbon_market_g=grams / 2)
    frame.to_csv(path / "ledger.csv", index=False)


def comparison(
    workdir: Path, cell: str = CELL, **seen: Mapping[int, float]
) -> list[runs.Run]:
    """Runs of one seed or more of several protocols of a comparison."""
    return [
        run
        for protocol, values in seen.items()
        for run in federation(workdir, f"{cell}.{protocol}", values)
    ]
