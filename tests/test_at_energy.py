"""The ranking of B5 at equal energy."""

import pandas as pd

from papers_repro.fedgen import at_energy, experiments, plot
from tests.federation_folders import CELL


def test_the_committed_ranking_at_equal_energy_is_that_of_the_curves():
    kept = experiments.HERE / "tables" / "curves" / "B5.csv"
    printed = at_energy.markdown(plot.read(kept))
    assert kept.with_suffix(".md").read_text() == printed


def test_at_equal_energy_each_is_read_at_its_last_state_that_costs_no_more():
    def states(*rows):
        return pd.DataFrame(rows, columns=["round", "end_seen", "energy_j"])

    found = at_energy.ranking(
        {
            (CELL, "fedavg"): states((0, 0.1, 0.0), (3, 0.6, 50.0), (6, 0.7, 100.0)),
            (CELL, "fedgen"): states((0, 0.1, 0.0), (3, 0.8, 100.9), (6, 0.9, 201.8)),
            (CELL, "scaffold"): states((0, 0.1, 0.0), (3, 0.9, 101.1)),
            (CELL, "centralised"): states((0, 0.1, 0.0), (6, 0.95, 1.0)),
        },
        CELL,
    )
    assert found["protocol"].tolist() == ["centralised", "fedgen", "fedavg", "scaffold"]
    assert found["round"].tolist() == [6, 3, 6, 0]
    assert found["rank"].isna().tolist() == [True, False, False, False]
    assert found["rank"].tolist()[1:] == [1, 2, 3]
    assert at_energy.ranking({(CELL, "fedgen"): states((0, 0.1, 0.0))}, CELL).empty
