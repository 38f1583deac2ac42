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


def read(path):
    return json.loads(path.read_text())


def log(path):
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [flat(json.loads(line)) for line in lines]


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in other.items():
        number = isinstance(value, float)
        wanted = pytest.approx(value, rel=1e-6, abs=1e-9) if number else value
        assert one[name] == wanted, name


def assert_same_arrays(path, straight, apart):
    """Compares the arrays of a file, whose values may be `apart` from each other."""
    with np.load(path) as one, np.load(straight) as other:
        assert one.files == other.files
        for name in other.files:
            assert one[name].dtype == other[name].dtype, name
            np.testing.assert_allclose(
                one[name], other[name], rtol=0, atol=apart, err_msg=name
            )


def assert_same_run(path, straight, times_resumed):
    """Compares all that a run leaves behind."""
    assert read(path / "summary.json")["resumed"] == times_resumed
    for name in ("summary.json", "uncertainty.json"):
        assert_same(flat(read(path / name)), flat(read(straight / name)))
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
    assert_same_arrays(path / "partition.npz", straight / "partition.npz", apart=0)
    images, others = path / "samples.npz", straight / "samples.npz"
    assert images.exists() == others.exists()
    if others.exists():  # only hops make images, which are rounded to whole numbers
        assert_same_arrays(images, others, apart=1)
