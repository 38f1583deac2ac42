"""Prints what the papers behind the relay cycle claim, and what our rows say of it.

    python -m papers_repro.relay_cycle.claims

`claims.csv` has a claim a row: in our words, with source and standing, and either the
row of a committed table that speaks to it, with the direction that it has by the claim,
or the reason why none does. Writes `tables/claims.md`.
"""

import argparse
import pathlib
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ecogen_jax.report import files, tables
from papers_repro import paper

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
SIGNS = (">", "<", "=")
TITLE = """\
Claims in our words; the direction is that of the claim, checked on our own numbers:
confirmed by every seed, by the mean alone, or not at all. It says nothing about the
papers' numbers, none of which was read. Printed from claims.csv and the tables by
`python -m papers_repro.relay_cycle.claims`."""
_TEXT = ("table", "row", "minus", "sign", "differences", "reason")


def read(path: pathlib.Path = HERE / "claims.csv") -> pd.DataFrame:
    """Reads the claims; text that is blank is "".

    Raises:
        ValueError: a standing or a sign is none, an id is there twice, or a claim has
            both a row and a reason, or neither.
    """
    frame = pd.read_csv(path, dtype=dict.fromkeys(_TEXT, "str"))
    frame = frame.fillna(dict.fromkeys(_TEXT, ""))
    wrong = {
        f"no standing of {paper.STANDINGS}": ~frame["standing"].isin(paper.STANDINGS),
        f"a row and no sign of {SIGNS}": (frame["row"] != "")
        & ~frame["sign"].isin(SIGNS),
        "an id that is there twice": frame["id"].duplicated(),
        "not either a row or a reason": (frame["row"] == "") == (frame["reason"] == ""),
    }
    for what, rows in wrong.items():
        if rows.any():
            raise ValueError(f"claims {frame['id'][rows].tolist()} have {what}")
    return frame


def checked(claims: pd.DataFrame, root: pathlib.Path = ROOT) -> tables.TextTable:
    """Sets each claim beside our row.

    Args:
        claims: from `read`.
        root: of the repository, where the tables are.

    Raises:
        ValueError: a claim names a row that its table does not have.
    """
    rows = [_row(claim, root) for claim in claims.to_dict("records")]
    header = ("id", "claim", "source", "standing", "row", "direction", "ours")
    return tables.TextTable(TITLE, (*header, "confirmed", "note"), rows)


def _row(claim: Mapping[Any, Any], root: pathlib.Path) -> tuple[str, ...]:
    said = [claim[name] for name in ("id", "claim")]
    said += [f"{claim['source']}; {claim['locator']}", claim["standing"]]
    if not claim["row"]:
        return (*said, *[tables.BLANK] * 4, f"no row: {claim['reason']}")
    name, (ours, values) = claim["row"], _ours(claim, root)
    if claim["minus"]:
        name += f" - {claim['minus']}"
    direction = f"{claim['sign']} {claim['than']:g}"
    answer = confirmed(values, claim["sign"], claim["than"])
    return (*said, name, direction, ours, answer, claim["differences"] or tables.BLANK)


def _ours(claim: Mapping[Any, Any], root: pathlib.Path) -> tuple[str, list[float]]:
    """Our value as text; our mean and, where there is one, our worst seed."""
    frame = paper.read(root / claim["table"]).set_index("id")
    named = [claim["row"], *[claim["minus"]] * bool(claim["minus"])]
    for id in named:
        if id not in frame.index:
            raise ValueError(f"{claim['id']} names {id!r}, not in {claim['table']}")
    mean, worst = frame.loc[claim["row"], ["ours_mean", "ours_worst"]]
    values = [mean, worst]
    if claim["minus"]:
        values = [mean - frame.loc[claim["minus"], "ours_mean"]]
    return f"{values[0]:.4g} {frame.loc[claim['row'], 'unit']}", values


def confirmed(values: list[float], sign: str, than: float) -> str:
    """Whether our values have the direction of a claim.

    Args:
        values: the mean first, then what else has to have it.
        sign: of `SIGNS`.
        than: what they are compared with.

    Returns:
        "yes" for all of them, "mean alone" for the first, or "no".
    """
    holds = {">": float.__gt__, "<": float.__lt__, "=": float.__eq__}[sign]
    found = [holds(float(value), than) for value in values]
    return "yes" if all(found) else "mean alone" if found[0] else "no"


def main() -> int:
    """Writes the table."""
    argparse.ArgumentParser(
        prog="python -m papers_repro.relay_cycle.claims",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    page = HERE / "tables" / "claims.md"
    files.put(page, tables.to_markdown(checked(read())))
    print(f"written to {page.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
