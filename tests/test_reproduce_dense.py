"""One shot from non-IID clients: the bars, and runs from the same clients."""

import pytest

from ecogen_jax import config as configs
from papers_repro import hops
from papers_repro.dense import reproduce
from papers_repro.dense.experiments import EXPERIMENTS
from papers_repro.dense.table import PAPER
from tests.hop_folders import assert_can_start, made


def row(found, id):
    return hops.judged(PAPER, id.partition(".")[0], found).set_index("id").loc[id]


def loaded(one, smoke=False):
    return configs.load(*hops.cell(one, 0, workdir="runs", smoke=smoke))


def test_a_share_of_the_own_ensemble_is_judged_at_every_alpha(tmp_path):
    found = made(tmp_path, "C1.alpha0.1.relay", {0: 0.81})
    found += made(tmp_path, "C1.alpha0.3.relay", {0: 0.80})
    assert row(found, "C1.alpha0.1.of_ensemble")["verdict"] == "met"
    assert row(found, "C1.alpha0.3.of_ensemble")["verdict"] == "missed"
    assert row(found, "C1.alpha0.1.dense")["published"] == 66.61
    assert row(found, "C1.alpha0.5.of_ensemble")["verdict"] == "not run"


def test_three_kinds_of_net_may_cost_two_points(tmp_path):
    found = made(tmp_path, "C2.alpha0.1.relay", {0: 0.90, 1: 0.93})
    found += made(tmp_path, "C1.alpha0.1.relay", {0: 0.93, 1: 0.94})
    bar = row(found, "C2.alpha0.1.minus_c1")
    assert (bar["ours_mean"], bar["verdict"]) == (pytest.approx(-2), "met")


def test_a_claim_has_a_value_or_the_reason_why_not():
    claims = PAPER.claims
    assert (claims["published"].isna() == claims["reason"].notna()).all()
    assert claims[["quantity", "unit", "source", "standing"]].notna().all(axis=None)


@pytest.mark.parametrize("id", EXPERIMENTS)
def test_an_experiment_can_start_from_its_start(id):
    assert_can_start(EXPERIMENTS[id], EXPERIMENTS, loaded)


@pytest.mark.parametrize("id", reproduce.IN_SMOKE)
def test_an_experiment_has_a_smoke(id):
    config = loaded(EXPERIMENTS[id], smoke=True)
    assert (config.experiment, config.data.name) == (f"{id}_smoke", "fake")
    assert len(config.nets.end.split(",")) == (3 if id.startswith("C2") else 1)


@pytest.mark.parametrize(
    ("words", "made_of_them"),
    [
        (["--only", "C1.alpha0.3.our_dense"], ["C1.alpha0.3.dense"]),
        (["--smoke"], [id for id in reproduce.IN_SMOKE if "clients" not in id]),
        (["--table"], []),
    ],
)
def test_only_what_is_asked_for_is_run_after_its_clients(
    monkeypatch, words, made_of_them
):
    todo = []
    monkeypatch.setattr(
        reproduce.harness, "make", lambda jobs, *rest: todo.extend(jobs) or []
    )
    monkeypatch.setattr(reproduce.harness, "finished", lambda *rest: ["a run"])
    monkeypatch.setattr(reproduce.hops, "show", lambda *rest: 0)
    assert reproduce.main(words) == 0
    first = [job for job in todo if job.start]
    assert list(dict.fromkeys(job.experiment for job in first)) == made_of_them
    assert {job.start for job in first} == {job.experiment for job in todo} - set(
        made_of_them
    )
    assert {job.seed for job in todo} <= ({0} if "--smoke" in words else set(range(5)))


def test_tables_from_nothing_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        reproduce.main(["--table", "--workdir", str(tmp_path)])
    assert "no finished run in" in capsys.readouterr().err


@pytest.mark.slow
def test_the_smoke_prints_a_table(capsys):
    assert reproduce.main(["--smoke", "--only", "C1.alpha0.1"]) == 0
    printed = capsys.readouterr().out
    assert "C1.alpha0.1.minus_dense" in printed
    assert "not run" not in printed
