"""Whether two run folders hold the same run, but for the times."""

import json

import jax
import numpy as np
import pandas as pd
import pytest

import ecogen_jax


def flat(tree, prefix=""):
    """Every number and text of a summary by its path, but for times."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {
            key: value
            for name, part in items
            if name not in ("seconds", "resumed", "host_s", "host_energy")
            for key, value in flat(part, f"{prefix}/{name}").items()
        }
    return {prefix: tree}


def log(path):
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [flat(json.loads(line)) for line in lines]


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in other.items():
        number = isinstance(value, float)
        wanted = pytest.approx(value, rel=1e-6, abs=1e-9) if number else value
        assert one[name] == wanted, name


def assert_same_run(path, straight, times_resumed):
    """Compares all that a run leaves behind."""
    summary, expected = (
        json.loads((folder / "summary.json").read_text()) for folder in (path, straight)
    )
    assert summary["resumed"] == times_resumed
    assert_same(flat(summary), flat(expected))
    lines, wanted = log(path), log(straight)
    assert len(lines) == len(wanted)
    for line, other in zip(lines, wanted, strict=True):
        assert_same(line, other)
    for name in ("parties.csv", "ledger.csv"):
        one, other = (
            pd.read_csv(folder / name).drop(columns="host_s", errors="ignore")
            for folder in (path, straight)
        )
        pd.testing.assert_frame_equal(one, other, rtol=1e-6)
    parties, others = (ecogen_jax.load_run(p).parties for p in (path, straight))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        parties,
        others,
    )
    if (straight / "samples.npz").exists():  # only hops make images
        one, other = (np.load(folder / "samples.npz") for folder in (path, straight))
        assert one.files == other.files
