"""A table says what its numbers are from, in one way for all tables."""

import platform

import pytest

from benchmarks import conv
from ecogen_jax.run import writer
from papers_repro import origin
from papers_repro.dfkd import calibrate
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


def test_the_processor_has_the_name_that_linux_gives(tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    info.write_text(
        "processor\t: 0\nold model name\t: no\nmodel name\t: A CPU: 2 GHz\n"
        "processor\t: 1\nmodel name\t: B\n"
    )
    assert origin.processor(info) == "A CPU: 2 GHz"
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    for named, shown in (("", "arm64"), ("C", "C")):
        monkeypatch.setattr(platform, "processor", lambda named=named: named)
        assert origin.processor(tmp_path / "none") == shown


def test_the_machine_of_a_budget_and_of_a_benchmark_is_that_processor():
    assert conv.machine() == f"{origin.processor()}, one core"
    assert calibrate.machine().startswith(f"{origin.processor()}, 1 core of ")
