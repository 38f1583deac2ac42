"""The tables of docs/privacy.md are what its committed attacks came to."""

import pathlib

import pandas as pd
import pytest

DOCS = pathlib.Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "privacy.md").read_text()


def attacks(protocol):
    return pd.read_csv(DOCS / "attacks" / f"{protocol}.csv")


@pytest.mark.parametrize("protocol", ["fedavg", "fedgen", "feddistill"])
def test_membership_is_printed_as_it_was_found(protocol):
    rows = attacks(protocol)
    plain = rows[rows["auc"].notna() & (rows["protection"] == "none")]
    assert PAGE.count(f" of `{protocol}` | ") == plain["message"].nunique()
    for message, found in plain.groupby("message"):
        assert set(found["round"]) == {181}
        names = "; ".join(found["attack"])
        cells = "; ".join(
            f"{row['auc']:.3f} [{row['auc_low']:.3f}, {row['auc_high']:.3f}]"
            for _, row in found.iterrows()
        )
        assert f"| {message} of `{protocol}` | {names} | {cells} |" in PAGE


def test_inversion_is_printed_as_it_was_found():
    rows = attacks("fedavg")
    rows = rows[rows["psnr_db"].notna()]
    groups = rows.groupby(["steps", "batch", "round"])
    assert len(groups) == 8
    for (steps, batch, number), both in groups:
        ordered = both.sort_values("protection", ascending=False)
        (_, plain), (_, noisy) = ordered.iterrows()
        assert (plain["protection"], noisy["protection"]) == ("none", "clip 1, noise 1")
        what = f"{counted(batch, 'image')}, {counted(steps, 'step')}"
        cells = f"{plain['psnr_db']:.1f} | {plain['chance_psnr_db']:.1f}"
        line = f"| {what} | {number} | {cells} | {gain(plain)} | {gain(noisy)} |"
        assert line in PAGE
        assert plain["gain_db_low"] > 0  # as the page says below the table
        assert noisy["gain_db_low"] <= 0 <= noisy["gain_db_high"]
        hardly = (batch, steps, number) == (1, 1, 181)
        assert (plain["gain_db_low"] < 0.1) == hardly


def counted(number, what):
    return f"{number:.0f} {what}{'' if number == 1 else 's'}"


def gain(row):
    low, high = row["gain_db_low"], row["gain_db_high"]
    return f"{row['gain_db']:+.1f} [{low:+.1f}, {high:+.1f}]"
