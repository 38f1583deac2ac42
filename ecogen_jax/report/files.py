"""Files named on the command line: read, or checked before the work starts."""

import warnings
from pathlib import Path

import pandas as pd


def read_csv(path: str | Path, rows: str) -> pd.DataFrame:
    """Reads a table that the user wrote.

    Args:
        path: a CSV.
        rows: what the rows are, such as "one bar a row".

    Returns:
        The table.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no table.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no file {path}; give a CSV with {rows}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # Else pandas would take the first fields of longer rows as an index.
            return pd.read_csv(path, index_col=False)
    except pd.errors.ParserWarning as error:
        raise ValueError(
            f"{path} has rows with more fields than its header; take away what is too "
            "much, or name the columns that are missing"
        ) from error
    except (OSError, ValueError) as error:
        reason = str(error).strip()
        raise ValueError(
            f"{path} is no table ({reason}); give a CSV with {rows}"
        ) from error


def check_output(flag: str, path: str | Path) -> None:
    """Checks that a file can be written later, so that no work is lost for it.

    Args:
        flag: what names the file on the command line.
        path: the file.

    Raises:
        ValueError: the path is a folder, or the folder above it is missing.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{flag} is {path}, a folder; name a file in it")
    if not path.parent.is_dir():
        raise ValueError(
            f"{flag} is {path}, but there is no folder {path.parent}; make it, or name "
            "a file elsewhere"
        )
