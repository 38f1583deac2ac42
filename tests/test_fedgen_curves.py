"""Accuracy against cost: what a run had cost at each of its states, and budgets."""

import pytest

from ecogen_jax.report import runs
from papers_repro.fedgen import curves
from tests.federation_folders import CELL, ROUNDS, comparison, federation, write_ledger
from tests.run_folders import make_run


def test_a_federation_costs_its_share_of_the_ledger_at_each_round(tmp_path):
    states = curves.curve(*federation(tmp_path, "B1.fedgen", {0: 0.9}))
    assert states["round"].to_list() == list(range(ROUNDS + 1))
    half, last = states.iloc[5], states.iloc[-1]
    assert (half["up_bytes"], half["end_flops"]) == (500, 5000)
    assert half["end_seen"] == pytest.approx(0.45)
    # Half of 50 + 400 + 50 J; the task that is answered afterwards is left out.
    assert (half["energy_j"], half["end_energy_j"]) == (250, 25)
    assert half["carbon_g"] == pytest.approx(0.25)
    assert half["carbon_market_g"] == pytest.approx(0.125)
    assert (last["energy_j"], last["up_bytes"]) == (500, 1000)
    assert (states.iloc[0][list(curves.COSTS)] == 0).all()


def test_training_alone_sends_nothing_and_still_costs(tmp_path):
    path = federation(tmp_path, "B1.alone", {0: 0.9})[0].path
    write_ledger(path, (1, "federated", "federated", "end", 500.0, 0, 50.0))
    last = curves.curve(runs.read(path)).iloc[-1]
    assert (last["up_bytes"], last["energy_j"], last["end_flops"]) == (0, 50, 500)


def test_a_relay_cycle_is_known_after_each_of_its_phases(tmp_path):
    path = make_run(tmp_path, "relay_cycle")
    write_ledger(
        path,
        (0, "pretrain", "pretrain", "cloud", 7.0, 0, 1.0),
        (1, "down", "down/edge_end", "edge_end", 0.0, 0, 10.0),
        (1, "local", "local", "end", 30.0, 0, 100.0),
        (1, "up", "up/end_edge", "edge_end", 0.0, 400, 1000.0),
        (1, "inference", "inference", "end", 5e9, 0, 5e9),
        (2, "down", "down/edge_end", "edge_end", 0.0, 0, 10.0),
        (2, "local", "local", "end", 30.0, 0, 100.0),
        (2, "up", "up/end_edge", "edge_end", 0.0, 400, 1000.0),
    )
    states = curves.curve(runs.read(path))
    assert states["up_bytes"].to_list() == [0, 0, 0, 400, 400, 400, 800]
    assert states["end_flops"].to_list() == [0, 0, 30, 30, 30, 60, 60]
    assert states["energy_j"].to_list() == [1, 11, 111, 1111, 1121, 1221, 2221]
    assert states["cloud"].iloc[-1] == 0.983


def test_the_costs_of_a_real_relay_cycle_are_those_of_its_ledger(finished):
    run = runs.read(finished.path)
    states, ledger = curves.curve(run), run.summary["ledger"]
    assert states["up_bytes"].iloc[-1] == ledger["link"]["edge_end"]["up_bytes"]
    task = run.ledger[run.ledger["phase"] == "inference"]["energy_j"].sum()
    whole = run.summary["total"]["energy_j"]["value"]
    assert states["energy_j"].iloc[-1] == pytest.approx(whole - task, rel=1e-6)
    assert (states[list(curves.COSTS)].diff().dropna() >= 0).all(axis=None)


@pytest.mark.parametrize(("up", "reached"), [(100, 10), (101, 10), (102, 9), (200, 5)])
def test_a_budget_allows_the_rounds_that_fit_into_it(tmp_path, up, reached):
    found = federation(tmp_path, f"{CELL}.fedavg", {0: 0.5})
    found += federation(tmp_path, f"{CELL}.scaffold", {0: 0.5}, up=up)
    at = curves.enriched(found)[1].summary["at"]
    assert at["uplink"]["round"] == reached
    assert at["tenth"]["round"] == (1 if up <= 101 else 0)
    assert at["flops"]["round"] == ROUNDS


def test_equal_flops_are_those_of_the_clients(tmp_path):
    found = federation(tmp_path, f"{CELL}.fedavg", {0: 0.5})
    found += federation(tmp_path, f"{CELL}.fedgen", {0: 0.5}, flops=1140.0)
    at = curves.enriched(found)[1].summary["at"]
    assert (at["flops"]["round"], at["uplink"]["round"]) == (8, ROUNDS)


def test_budgets_are_those_of_the_same_seed_and_comparison(tmp_path):
    found = comparison(tmp_path, fedavg={0: 0.5}, fedgen={0: 0.6, 1: 0.7})
    there = [
        (run.summary["experiment"].rpartition(".")[2], run.summary["seed"])
        for run in curves.enriched(found)
        if "at" in run.summary
    ]
    assert there == [("fedavg", 0), ("fedgen", 0)]
