"""Reads run folders."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ecogen_jax import config as configs

_NEEDED = {
    "config.json": ("experiment",),
    "manifest.json": ("git_commit", "git_dirty", "command", "started", "versions"),
    "summary.json": ("experiment", "seed", "dataset", "synthetic_data", "phases"),
    "metrics.jsonl": ("stage",),
    "parties.csv": ("tier",),
    "ledger.csv": ("place",),
}
"""Keys or columns that a whole file has, whatever was run."""

_REMEDY = "put the file back, or delete the run folder and run the experiment again"


class Run(NamedTuple):
    """A finished run.

    Attributes:
        path: the run folder.
        config: the resolved config; a field that its version lacked has its default.
        manifest: commit, versions, devices, seed and command.
        summary: the final numbers.
        metrics: one row a line of `metrics.jsonl`.
        parties: accuracy by cycle, phase, tier and party, as fractions.
        ledger: one row a ledger entry.
    """

    path: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    summary: dict[str, Any]
    metrics: pd.DataFrame
    parties: pd.DataFrame
    ledger: pd.DataFrame


def read(path: str | Path) -> Run:
    """Reads a finished run folder.

    Args:
        path: the folder that holds `summary.json`.

    Returns:
        The run.

    Raises:
        FileNotFoundError: the folder is no run, is not finished, or lacks a file.
        ValueError: a file is damaged, or cannot be read.
    """
    path = Path(path)
    _require_finished(path)

    def whole(parse: Callable[[Path], Any], name: str) -> Any:
        return _parsed(parse, path / name, _NEEDED[name])

    return Run(
        path=path,
        config=configs.completed(whole(_json, "config.json")),
        manifest=whole(_json, "manifest.json"),
        summary=whole(_json, "summary.json"),
        metrics=whole(_json_lines, "metrics.jsonl"),
        parties=whole(pd.read_csv, "parties.csv"),
        ledger=whole(pd.read_csv, "ledger.csv"),
    )


def find(paths: Iterable[str | Path]) -> list[Path]:
    """Expands folders to the finished run folders in them.

    Args:
        paths: run folders, or folders with runs somewhere below them.

    Returns:
        The run folders in the order given, each once; sorted within one folder.

    Raises:
        FileNotFoundError: one of the paths has no finished run.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        below = sorted(file.parent for file in path.rglob("summary.json"))
        if not below:
            _require_finished(path)
        found.update(dict.fromkeys(below))
    return list(found)


def _require_finished(path: Path) -> None:
    if (path / "summary.json").exists() and (path / "config.json").exists():
        return
    if (path / "config.json").exists():
        raise FileNotFoundError(
            f"run not finished: {path} has no summary.json; run the same command "
            "again to resume it"
        )
    raise FileNotFoundError(
        f"no finished run in {path}; give a run folder "
        "(runs/<experiment>/<time>-seed<k>) or a folder above some"
    )


def read_json(path: Path, *needed: str) -> dict[str, Any]:
    """Reads a JSON file of a run.

    Args:
        path: the file.
        *needed: keys that it has to have.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is damaged, or cannot be read.
    """
    content: dict[str, Any] = _parsed(_json, path, needed)
    return content


def _parsed(parse: Callable[[Path], Any], path: Path, needed: Iterable[str]) -> Any:
    """Reads one file of a run, whose name an error of the parser does not give."""
    try:
        content = parse(path)
        lacking = [name for name in needed if name not in content]
        if lacking:
            raise ValueError(f"it has no {', '.join(lacking)}")
        return content
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing; {_REMEDY}") from error
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}); make it a file that you may "
            f"read, or {_REMEDY}"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); {_REMEDY}") from error


def _json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    return content


def _json_lines(path: Path) -> pd.DataFrame:
    return pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])
