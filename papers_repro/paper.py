"""What was published, the bars beside it, and the tables that runs fill in.

A paper's folder has `claims.csv` (what was published) and `bars/<table>.csv` (what ours
is held against, written before the runs). Here is what all such folders share.
"""

import dataclasses
import difflib
import functools
import io
import math
import pathlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import IO, Any

import pandas as pd

from ecogen_jax.report import bars, tables, verdicts
from ecogen_jax.report.files import put
from ecogen_jax.report.runs import Run

STANDINGS = ("read", "second-hand", "inferred")
BEST = "best"
"""In the column `against`: the best of the experiment's family."""

ENOUGH_SEEDS = 3
"""What a comparison needs at least, before anything follows from it."""

SMOKE = "SMOKE: generated data; these numbers show nothing."
"""What a smoke says above its tables."""

SMOKE_SUFFIX = "_smoke"
"""Of the names of its experiments."""

# What is said of a row beside what it asks; it may be corrected without new runs.
_SAID = ("published", "locator", "standing", "aim", "kind", "sort")
_SHOWN = {
    "id": "id",
    "quantity": "quantity",
    "unit": "unit",
    "published": "published",
    "standing": "standing",
    "ours_mean": "ours",
    "ours_std": "std",
    "ours_worst": "worst",
    "interval": "95 %",
    "seeds": "seeds",
    "trials": "trials",
    "bar": "bar",
    "aim": "aim",
    "verdict": "verdict",
}


@dataclasses.dataclass(frozen=True)
class Paper:
    """One folder of claims and bars.

    Attributes:
        folder: holds `claims.csv`, `bars/` and `tables/`.
        title: of all tables together.
        command: what makes the runs and prints the tables.
        seeds: those that each experiment asks for.
        family: the experiments among which `BEST` is sought for an experiment.
        columns: numbers of a judged table beyond those of `verdicts.judge`, and what
            they are called for reading.
        more: tables whose bars are not in files, in the columns of such a file.
    """

    folder: pathlib.Path
    title: str
    command: str
    seeds: Mapping[str, Sequence[int]]
    family: Callable[[str], list[str]]
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    more: Mapping[str, pd.DataFrame] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def claims(self) -> pd.DataFrame:
        """What was published, by id.

        Raises:
            ValueError: an id is there twice, a standing is none of `STANDINGS`, or a
                value is blank without a reason.
        """
        frame = pd.read_csv(self.folder / "claims.csv").set_index("id")
        twice = frame.index[frame.index.duplicated()].tolist()
        if twice:
            raise ValueError(
                f"claims.csv has the ids {twice} twice; rename one of each"
            )
        wrong = frame.index[~frame["standing"].isin(STANDINGS)].tolist()
        if wrong:
            raise ValueError(
                f"standing of {wrong} in claims.csv is none of {', '.join(STANDINGS)}"
            )
        unsaid = frame["published"].isna() & frame["reason"].isna()
        if unsaid.any():
            blank = frame.index[unsaid].tolist()
            raise ValueError(f"claims {blank} are blank and do not say why")
        return frame

    @functools.cached_property
    def bars(self) -> dict[str, pd.DataFrame]:
        """The bars by table, each beside the claim that it names.

        Raises:
            ValueError: a file is wrong (see `bars.read`), or a claim is unknown.
        """
        files = self.folder.glob("bars/*.csv")
        read = {path.stem: bars.read(path) for path in files} | dict(self.more)
        return {name: self._with_claims(name, read[name]) for name in sorted(read)}

    def _with_claims(self, name: str, frame: pd.DataFrame) -> pd.DataFrame:
        unknown = sorted(set(frame["claim"].dropna()) - set(self.claims.index))
        if unknown:
            raise ValueError(f"{name} names the claims {unknown}; add them")
        found = self.claims.reindex(frame["claim"])
        return frame.assign(
            against=frame["against"].astype("str"),  # also where all are blank
            published=found["published"].to_numpy(),
            standing=found["standing"].to_numpy(),
            locator=(found["source"] + "; " + found["locator"]).to_numpy(),
        )

    def chosen(self, only: Iterable[str] = ()) -> pd.DataFrame:
        """Returns the bars with one of these ids, or below one of them; all for none.

        Args:
            only: ids or their first parts, such as "A1" or "C1.alpha0.1"; or names of
                tables, whose bars may be called otherwise.

        Raises:
            ValueError: an id has no bar.
        """
        frame = pd.concat(self.bars.values(), ignore_index=True)
        wanted = list(only)
        if not wanted:
            return frame
        meant = pd.Series(False, index=frame.index)
        for id in wanted:
            below = frame["id"].map(lambda own, id=id: _within(own, id))
            if id in self.bars:
                below |= frame["id"].isin(self.bars[id]["id"])
            if not below.any():
                names = ", ".join(self.bars)
                raise ValueError(
                    f"no bar is called {id!r}; there are {names} and parts"
                )
            meant |= below
        return frame[meant]

    def experiments(self, frame: pd.DataFrame) -> list[str]:
        """Ids of the experiments that bars are about, in the order of the rows.

        Raises:
            ValueError: a bar names an experiment that is not in `experiments.py`.
        """
        named: list[str] = []
        for own, against in frame[["experiment", "against"]].itertuples(index=False):
            others = [] if pd.isna(against) else [against.partition(" ")[2]]
            named += [own, *(self.family(own) if against == BEST else others)]
        for name in named:
            if name not in self.seeds:
                near = difflib.get_close_matches(name, self.seeds) or list(self.seeds)
                raise ValueError(
                    f"a bar in {self.folder}/bars names the experiment {name!r}, which "
                    f"is not in experiments.py beside it; near it: {', '.join(near)}"
                )
        return list(dict.fromkeys(named))

    def asked(
        self, name: str, found: Sequence[Run], *, smoke: bool = False
    ) -> pd.DataFrame:
        """The bars of a table, with the experiments behind `BEST` by their names.

        Args:
            name: of the table, such as "A1".
            found: finished runs.
            smoke: whether they are those of the smoke, on generated data.
        """
        suffix = SMOKE_SUFFIX if smoke else ""

        def named(bar: "pd.Series[str]") -> str:
            if bar["against"] != BEST:
                return bar["against"]
            others = self.family(bar["experiment"])
            means = {
                other: score
                for other in others
                if (score := _mean(found, other + suffix, bar["expression"]))
                is not None
            }
            # Nothing to compare with yet: any of them, and the row was not run.
            return f"- {max(means, key=means.__getitem__, default=others[0])}"

        frame = self.bars[name]
        frame = frame.assign(against=frame.apply(named, axis=1).astype("str"))
        return _as_smoke(frame) if smoke else frame

    def judged(self, frame: pd.DataFrame, found: Sequence[Run]) -> pd.DataFrame:
        """Fills in what the runs gave: the columns of `verdicts.judge`, our command."""
        table = verdicts.judge(frame, found)
        table["command"] = f"{self.command} --only " + table["id"]
        return table

    def kept(
        self, name: str, table: pd.DataFrame, folder: pathlib.Path
    ) -> pd.DataFrame:
        """Puts back what an earlier call has printed of runs that are not at hand.

        A row stands for itself, and keeps its commit. Where a table ranks (it has
        `cell`), the rows of a comparison stand together: all are put back, or none.

        Args:
            name: of the table.
            table: as judged now.
            folder: where `write` has put it before, or not yet.

        Returns:
            The table; a row that is asked otherwise since is not put back, and what is
            said beside it (`_SAID`) is as it is said now.
        """
        path = folder / f"{name}.csv"
        if not path.exists():
            return table
        before = bars.printed(path).reindex(columns=table.columns)
        before = before[before["ours_mean"].notna()]
        asked = self.bars[name].set_index("id").reindex(before["id"])
        best = (asked["against"] == BEST).to_numpy()
        asked["against"] = asked["against"].mask(best, before["against"].to_numpy())
        same = bars.unchanged(asked, before).to_numpy()
        asked, before = asked[same], before[same]
        said = {name: asked[name].to_numpy() for name in _SAID if name in asked}
        before = before.assign(**said)
        before["deviation"] = bars.deviation(before)
        by = "cell" if "cell" in table else "id"
        made = set(table.loc[table["ours_mean"].notna(), by])
        parts = []
        for key in dict.fromkeys([*table[by], *before[by]]):
            new, old = table[table[by] == key], before[before[by] == key]
            parts += [new] if key in made else [old, new[~new["id"].isin(old["id"])]]
        return pd.concat([part for part in parts if len(part)], ignore_index=True)

    def write(
        self,
        judged: Mapping[str, pd.DataFrame],
        folder: pathlib.Path,
        *,
        smoke: bool = False,
        printers: Mapping[str, Callable[[str, pd.DataFrame], str]] | None = None,
    ) -> pathlib.Path:
        """Writes `<ID>.csv` and `.md` for tables, and all of the folder as `all.md`.

        Args:
            judged: by name; other tables of the folder stay.
            folder: made where it is missing.
            smoke: whether the numbers show nothing.
            printers: what makes the Markdown of a table, where not `markdown`.

        Returns:
            The path of `all.md`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in judged.items():
            path = folder / f"{name}.csv"
            text = frame.to_csv(index=False, lineterminator="\n")
            printer = (printers or {}).get(name, self.markdown)
            # Whole or not at all, and never a CSV without what it prints.
            shown = printer(name, read(io.StringIO(text)))
            put(path.with_suffix(".md"), shown)
            put(path, text)
        sections = [f"# {self.title}\n"]
        sections += [f"{SMOKE}\n"] * smoke
        written = sorted(folder.glob("*.csv"))
        sections += [path.with_suffix(".md").read_text("utf-8") for path in written]
        whole = folder / "all.md"
        put(whole, "\n".join(sections))
        return whole

    def markdown(self, name: str, table: pd.DataFrame) -> str:
        """Prints one table, above its command, its commits and what it lacks."""
        shown = tables.to_markdown(
            tables.from_frame(f"## {name}", self.readable(table))
        )
        return "\n".join([shown, *self.origin(name, table)])

    def origin(self, name: str, table: pd.DataFrame) -> list[str]:
        """Lines that say how a table was made, and what is thin or missing in it."""
        found = dict.fromkeys(" ".join(table["commit"].dropna()).split())
        commits = " ".join(found) or tables.BLANK
        lines = [f"Command: `{self.command} --only {name}`; commit: {commits}\n"]
        thin = ", ".join(_thin(table))
        if thin:
            lines.append(f"Fewer than {ENOUGH_SEEDS} seeds, so no claim: {thin}.\n")
        lacking = ", ".join(self.missing(table))
        return lines + [f"Not run: {lacking}.\n"] * bool(lacking)

    def missing(self, table: pd.DataFrame) -> list[str]:
        """Runs that a table asks for and does not have, as "A1 seeds 3 4"."""
        alone = table[table["against"].isna()]
        lacking = []
        for name, rows in alone.groupby("experiment", sort=False):
            id = str(name).removesuffix(SMOKE_SUFFIX)
            there = " ".join(rows["seeds"].dropna()).split()
            seeds = [str(k) for k in self.seeds[id] if str(k) not in there]
            if seeds:
                lacking.append(f"{id} seeds {' '.join(seeds)}")
        return lacking

    def readable(self, table: pd.DataFrame) -> pd.DataFrame:
        """Returns a table's columns for reading; those without values are left out."""
        # Where the spread is judged, a mean beside it would be taken for what is.
        spread = table["judged"] == "std"
        hidden = ("ours_mean", "ours_worst", *self.columns)
        table = table.assign(**{name: table[name].mask(spread) for name in hidden})
        rows = table.to_dict("records")
        numbers = ("published", "ours_mean", "ours_std", "ours_worst", *self.columns)
        text = table.assign(
            bar=[bars.in_words(row) for row in rows],
            interval=[interval(row) for row in rows],
            **{
                name: [digits(row[name], row["unit"]) for row in rows]
                for name in numbers
            },
        )
        shown = {**_SHOWN, **self.columns}
        there = [name for name in shown if name in text]
        text = text[there].astype(object).fillna(tables.BLANK)
        blank = (text == tables.BLANK).all()
        return text.loc[:, ~blank].rename(columns=shown)

    def short(self, table: pd.DataFrame) -> pd.DataFrame:
        """Returns the columns of `readable` for a terminal, ids above all."""
        wanted = ("id", "published", "ours", "std", "worst", "bar", "verdict")
        text = self.readable(table)
        return text[[name for name in wanted if name in text]]


def read(path: pathlib.Path | IO[str]) -> pd.DataFrame:
    """Reads a written table back; seeds, commits and numbers of trials are text."""
    return pd.read_csv(path, dtype=dict.fromkeys(("seeds", "commit", "trials"), "str"))


def _mean(found: Iterable[Run], experiment: str, expression: str) -> float | None:
    """Mean of an expression over the runs of an experiment; None without a run."""
    values = [
        verdicts.evaluate(expression, run)
        for run in found
        if run.summary["experiment"] == experiment
    ]
    return sum(values) / len(values) if values else None


def _thin(table: pd.DataFrame) -> list[str]:
    """Ids of bars and of differences that too few seeds stand behind."""
    says = table["bar"].notna() | table["against"].notna()
    judged = table[says & table["seeds"].notna()]
    few = judged["seeds"].map(lambda seeds: len(seeds.split()) < ENOUGH_SEEDS)
    return judged["id"][few].tolist()


def digits(value: float, unit: str) -> str:
    """Two digits of a percentage, all of a count, four of the rest."""
    if math.isnan(value):
        return tables.BLANK
    if unit in ("%", "points"):
        return f"{value:.2f}"
    return f"{value:,.0f}" if unit == "bytes" else f"{value:.4g}"


def interval(row: Mapping[Hashable, Any]) -> str:
    """The ends `low` and `high` of a row as text, or a dash where it has none."""
    if math.isnan(row["low"]):
        return tables.BLANK
    low, high = (digits(row[end], row["unit"]) for end in ("low", "high"))
    return f"{low} to {high}"


def _within(id: str, part: str) -> bool:
    return id == part or id.startswith(f"{part}.")


def _as_smoke(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(
        experiment=frame["experiment"] + SMOKE_SUFFIX,
        against=frame["against"] + SMOKE_SUFFIX,
        dataset="fake",
    )
