"""The committed CSVs use one vocabulary for how a claim was read and for verdicts."""

import pathlib

import pandas as pd
import pytest

from papers_repro.paper import STANDINGS

ROOT = pathlib.Path(__file__).parent.parent
WORDS = {
    "standing": set(STANDINGS),
    "verdict": {"met", "missed", "no bar", "not run"},
}
FILES = sorted(
    path.relative_to(ROOT)
    for folder in ("papers_repro", "benchmarks")
    for path in (ROOT / folder).rglob("*.csv")
)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_standings_and_verdicts_are_of_the_vocabulary(path):
    frame = pd.read_csv(ROOT / path)
    for name, words in WORDS.items():
        if name in frame:
            assert set(frame[name].dropna()) <= words, name
    if "verdict" in frame:
        assert frame["verdict"].notna().all()
        assert (
            frame["bar"].isna() <= frame["verdict"].isin(["no bar", "not run"])
        ).all()
