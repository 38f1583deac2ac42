"""Installs the peers, each into its own environment below `.cache/benchmarks/`.

    python -m benchmarks.peers install [--only fedjax,flower]

Takes a few minutes and about 3 GB, if pip finds CPU builds of PyTorch. Peers that
cannot be installed are reported; pip's output is kept next to the environment.
"""

import argparse
import subprocess
import sys
import venv

from rich.console import Console

from benchmarks.peers import PEERS, folder, interpreter


def main() -> int:
    """Runs the command line; the exit code is 1 if a peer could not be installed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["install"])
    parser.add_argument("--only", default=",".join(PEERS), metavar="NAME,NAME")
    options = parser.parse_args()
    names = options.only.split(",")
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        parser.error(f"no peers {unknown}; allowed: {', '.join(PEERS)}")
    console = Console()
    failed = [name for name in names if not install(name, console)]
    return int(bool(failed))


def install(name: str, console: Console) -> bool:
    """Makes the environment of one peer anew, unless it is complete.

    Args:
        name: one of `PEERS`.
        console: gets one line.

    Returns:
        Whether it is there.
    """
    place = folder(name)
    if interpreter(name) is not None:
        console.print(f"{name}: there already")
        return True
    venv.create(place, clear=True, with_pip=True)
    python, log = place / "bin" / "python", place.with_suffix(".log")
    with console.status(f"installing {name}"), log.open("w") as file:
        done = subprocess.run(
            [python, "-m", "pip", "install", "--no-cache-dir", *PEERS[name]],
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        line = f"{name}: pip failed, see {log}"
        console.print(line, style="red", soft_wrap=True, markup=False)
        return False
    (place / "complete").touch()
    console.print(f"{name}: installed")
    return True


if __name__ == "__main__":
    sys.exit(main())
