"""The peers: their packages and environments.

Their scripts are in this folder. They run in their own environments, so from this
repository they import only `benchmarks.speaker` and `benchmarks.tasks`, which need at
most NumPy.
"""

import pathlib
import tomllib

_ROOT = pathlib.Path(__file__).parents[2]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
_TORCH = tuple(_PROJECT["optional-dependencies"]["benchmark"])

PEERS: dict[str, tuple[str, ...]] = {
    "torch": (*_TORCH, "numpy"),
    # The last release of JAX on which the published fedjax runs.
    "fedjax": ("fedjax==0.0.17", "jax==0.4.38", "jaxlib==0.4.38"),
    "pfl": ("pfl==0.6.0", *_TORCH),
    "flower": ("flwr[simulation]==1.41.0",),
}
"""What pip installs, by peer."""


def folder(name: str) -> pathlib.Path:
    """The environment of a peer, whether it is there or not."""
    return _ROOT / ".cache" / "benchmarks" / name


def interpreter(name: str) -> pathlib.Path | None:
    """The Python of a peer, or None where it is not installed."""
    place = folder(name)
    return place / "bin" / "python" if (place / "complete").exists() else None
