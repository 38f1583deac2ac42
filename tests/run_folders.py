"""Makes finished run folders with made-up numbers, for the tests of the reports."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

STAGES = (
    ("pretrain", "pretrain", "cloud"),
    ("local_only", "local_only", "end"),
    ("down", "down/cloud_edge", "edge"),
    ("down", "down/edge_end", "end"),
    ("local", "local", "end"),
    ("up", "up/end_edge", "edge"),
    ("up", "up/edge_cloud", "cloud"),
)
PHASES = (
    (0, "start", 0.98, 0.10, 0.10, 0.10),
    (1, "down", 0.98, 0.955, 0.91, 0.905),
    (1, "local", 0.98, 0.955, 0.86, 0.97),
    (1, "up", 0.982, 0.96, 0.86, 0.97),
    (2, "down", 0.982, 0.966, 0.93, 0.92),
    (2, "local", 0.982, 0.966, 0.88, 0.975),
    (2, "up", 0.983, 0.97, 0.88, 0.975),
)


HOPS = tuple(
    (cycle, stage, student)
    for cycle in (1, 2)
    for phase, stage, student in STAGES
    if phase in ("down", "up")
)


def summary(experiment: str, seed: int, **changes: Any) -> dict[str, Any]:
    """Returns a summary of two cycles; `changes` replace whole keys."""
    phases = [
        {
            "cycle": cycle,
            "phase": phase,
            "accuracy": {
                "cloud": cloud,
                "edge": edge,
                "end": end,
                "end_own": own,
                "end_own_worst": own - 0.05,
                "end_seen": own - 0.02,
                "end_unseen": end - 0.1,
            },
        }
        for cycle, phase, cloud, edge, end, own in PHASES
    ]
    return {
        "experiment": experiment,
        "seed": seed,
        "dataset": "mnist",
        "synthetic_data": False,
        "phases": phases,
        "hops": [_hop(*names) for names in HOPS],
        "baselines": {
            "local_only": {
                "end": 0.56,
                "end_own": 0.951,
                "end_own_worst": 0.912,
                "end_seen": 1.0,
                "end_unseen": None,
            },
            "ensemble_end": {"tier": "end", "test": 0.9, "validation": 0.91},
        },
        "ledger": {
            "cloud": {"flops": 4.1e13, **_cost(0.31)},
            "edge": {"flops": 2.2e13, **_cost(310.0)},
            "end": {"flops": 7.7e11, **_cost(15.5)},
            "link": {
                "cloud_edge": {"up_bytes": 1_200_000, "down_bytes": 0, **_cost(0.05)},
                "edge_end": {"up_bytes": 0, "down_bytes": 0, **_cost(0.0)},
            },
        },
        "seconds": {"compile": 41.2, "train": 130.0, "evaluate": 6.25},
        "raw_samples_on_links": 0,
        "resumed": 1,
        **changes,
    }


def make_run(
    workdir: Path,
    experiment: str = "relay_cycle",
    seed: int = 0,
    config: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Writes a finished run folder; `changes` replace keys of the summary."""
    path = workdir / experiment / f"20260102-03040{seed}-seed{seed}"
    path.mkdir(parents=True)
    fields = {"experiment": experiment, "seed": seed, "data": {"alpha": 0.3}}
    _write(path / "config.json", {**fields, **(config or {})})
    _write(path / "manifest.json", _manifest(seed))
    _write(path / "summary.json", summary(experiment, seed, **changes))
    records = [{"event": "started"}, *_metrics()]
    (path / "metrics.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in records))
    _write(path / "uncertainty.json", _uncertainty())
    _write_tables(path)
    _write_arrays(path)
    return path


def _hop(cycle: int, stage: str, student: str) -> dict[str, Any]:
    sender = stage.partition("/")[2].partition("_")[0]
    return {
        "cycle": cycle,
        "stage": stage,
        "tier": student,
        "teacher": {"tier": sender, "test": 0.989, "validation": 0.988},
        "together": {"test": 0.991, "validation": 0.99},
        "test": 0.9812,
        "validation": 0.9801,
        "worst_test": 0.9795,
        "mean_over_training_validation": 0.75,
        "peak_validation": 0.9834,
        "last_validation": 0.98,
        "largest_drop_last_half": 0.0034,
        "seconds": {"train": 123.4, "compile": 9.6},
        "link": {"cloud_edge": {"up_bytes": 0, "down_bytes": 1_000}},
    }


def _cost(joules: float) -> dict[str, Any]:
    return {
        "energy_j": joules,
        "energy_low_j": 0.6 * joules,
        "energy_high_j": 1.7 * joules,
        "carbon_location_g": joules * 1.3e-4,
        "carbon_market_g": joules * 1.1e-4,
        "kind": "modelled",
    }


def _uncertainty() -> dict[str, Any]:
    inputs = [
        {"name": f"device{n} power_w", "carbon_g": _between(0.4, 0.1 - n / 1000)}
        for n in range(12)
    ]
    totals = {"energy_j": _between(3000.0, 1000.0), "carbon_g": _between(0.4, 0.2)}
    return {"coverage": 0.9, "draws": 100, **totals, "inputs": inputs}


def _between(value: float, reach: float) -> dict[str, float]:
    return {"value": value, "low": value - reach, "high": value + reach}


def _manifest(seed: int) -> dict[str, Any]:
    return {
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "git_dirty": True,
        "versions": {"jax": "0.10.2", "numpy": "2.4.6"},
        "python": "3.11.7",
        "platform": "Linux-6.1-x86_64",
        "devices": ["TFRT_CPU_0 (cpu)"],
        "seed": seed,
        "command": "python scripts/train.py --config configs/x.py",
        "started": "2026-01-02T03:04:05+00:00",
        "synthetic_data": False,
    }


def _metrics() -> list[dict[str, Any]]:
    return [
        {
            "cycle": cycle,
            "phase": phase,
            "stage": stage,
            "round": number,
            "rounds": 5,
            f"{tier}/validation_accuracy": 1 - 0.8 / (number + cycle),
        }
        for cycle in (1, 2)
        for phase, stage, tier in STAGES
        if cycle == 1 or phase not in ("pretrain", "local_only")
        for number in range(1, 6)
    ]


def _write_tables(path: Path) -> None:
    parties = [(1, "local", "end", f"end{n}", 0.8 + n / 100, 0.97) for n in range(10)]
    columns = ["cycle", "phase", "tier", "party", "accuracy", "own_accuracy"]
    pd.DataFrame(parties, columns=columns).to_csv(path / "parties.csv", index=False)
    entry = {"cycle": 1, "phase": "local", "place": "end", "energy_j": 15.5}
    pd.DataFrame([entry]).to_csv(path / "ledger.csv", index=False)


def _write_arrays(path: Path) -> None:
    rng = np.random.default_rng(0)
    counts = rng.dirichlet([0.3] * 10, 10) * 2700
    np.savez(path / "partition.npz", label_counts=counts.astype(np.int64))
    images = rng.integers(0, 256, (12, 28, 28, 1), dtype=np.uint8)
    hops = {f"{c}/{s}": images for c in (1, 2) for _, s, _ in STAGES if "/" in s}
    np.savez(path / "samples.npz", **hops)  # type: ignore[arg-type]


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))
