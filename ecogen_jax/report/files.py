"""Files that a command reads, checks before its work starts, or puts in their place."""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
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
        path: the file; one that is there stays as it is.

    Raises:
        ValueError: the path is a folder, the folder above it is missing, or no file can
            be written there.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ValueError(f"{flag} is {path}, a folder; name a file in it")
        if not path.parent.is_dir():
            raise ValueError(
                f"{flag} is {path}, but there is no folder {path.parent}; make it, or "
                "name a file elsewhere"
            )
        _try_to_write(path)
    except OSError as error:
        raise ValueError(
            f"{flag} is {path}, which cannot be written ({error.strerror}); name a "
            "file elsewhere"
        ) from error


def _try_to_write(path: Path) -> None:
    if not path.exists():
        path.open("xb").close()
        path.unlink()
    elif path.is_file():  # to open and close a pipe would end it
        path.open("ab").close()


def check_folder(path: Path) -> None:
    """Checks that a folder can be made or is there, and that it takes files.

    Args:
        path: the folder; it is not left behind where it was not there.

    Raises:
        ValueError: it cannot, as `accessing` tells it.
    """
    with accessing(path):
        new = not path.exists()
        path.mkdir(exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
        if new:
            path.rmdir()


def make_folder(path: Path) -> None:
    """Makes a folder where it is missing, and checks that files can be put into it.

    Raises:
        ValueError: it cannot be made or written.
    """
    with accessing(path):
        path.mkdir(parents=True, exist_ok=True)
    check_folder(path)


@contextlib.contextmanager
def accessing(path: str | Path) -> Iterator[None]:
    """Has errors of the file system say in one line which path they are about.

    Args:
        path: what is read or written, for an error that does not say.

    Yields:
        Nothing.

    Raises:
        ValueError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{error.filename2 or error.filename or path} cannot be read or written "
            f"({error.strerror or error}); clear the path, permit its use or make "
            "room, and give the same command again"
        ) from error


def put(path: Path, content: str | Callable[[Path], object]) -> None:
    """Puts a file in its place once it is whole; until then the one before stays.

    Args:
        path: the file.
        content: its text, or what writes it to a path.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        if isinstance(content, str):
            temporary.write_text(content, encoding="utf-8")
        else:
            content(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
