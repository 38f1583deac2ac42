"""A table says which code its numbers are from, in one way for all tables."""

import pytest

from ecogen_jax.run import writer
from papers_repro import origin
from papers_repro.energy import rows


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        (("0123abc", False), "0123abc"),
        (("0123abc", True), "0123abc-dirty"),
        ((None, None), ""),
    ],
)
def test_the_commit_of_a_row_is_that_of_a_run(monkeypatch, state, shown):
    states = iter([state])
    monkeypatch.setattr(writer, "git_state", lambda: next(states))
    origin.commit.cache_clear()
    try:
        for _ in range(2):  # asked once
            row = rows.row(
                id="V1.x",
                quantity="energy",
                unit="J",
                published=1.0,
                locator="Table 1",
                standing="read",
                ours=1.0,
                kind="modelled",
                sort="accounting",
            )
            assert row["commit"] == shown
    finally:
        origin.commit.cache_clear()
