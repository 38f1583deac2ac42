"""The folder of `--out`, made and tried before minutes of measuring."""

import pathlib

from ecogen_jax.report import files


def prepare(folder: pathlib.Path, *names: str) -> None:
    """Makes a folder, and checks that files can be written to it.

    Args:
        folder: of `--out`.
        names: files that will be written; those that are there stay as they are.

    Raises:
        ValueError: the folder or a file cannot be written.
    """
    try:
        files.make_folder(folder)
        with files.accessing(folder):
            for path in (folder / name for name in names):
                if path.exists():
                    path.open("ab").close()
    except ValueError as error:
        raise ValueError(f"argument --out: {error}") from error
