"""Bytes of a federation's state between two rounds, by method and by where they are.

    python -m benchmarks.state [--out benchmarks/results]

Of each method in the setting of FedGen's published MNIST protocol, and of FedAvg with
other ways to treat its updates: the state that `jax.eval_shape` gives, without any
training. Each JAX device has the state of the server, which must not grow with the
federation; what there is for each end device is on the host. Writes `state.csv` and
`state.md`, in seconds.
"""

import argparse
import pathlib
import shlex
import sys
from typing import Any

import jax
import numpy as np
import pandas as pd
from rich.console import Console

from benchmarks import output
from benchmarks.workers import ROOT
from ecogen_jax.config_federated import METHODS
from ecogen_jax.config_presets import federated as published
from ecogen_jax.relay.federated import streaming
from ecogen_jax.relay.federated.base import Member
from ecogen_jax.relay.federated.engine import Cohort, Federation
from ecogen_jax.relay.learn import Data
from ecogen_jax.relay.parties import Topology
from ecogen_jax.report import tables
from ecogen_jax.run.build import build_nets
from ecogen_jax.run.build_federated import federated
from papers_repro.origin import commit

FEW, MANY = 1_000, 100_000
"""Devices whose states are compared."""

SHAPE, CLASSES = (28, 28, 1), 10
AVERAGED = {"statistics": "average"}
"""Running statistics of BatchNorm, so that no method keeps them on the device."""

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{method: (method, AVERAGED) for method in METHODS},
    "fedavg, statistics = own": ("fedavg", {"statistics": "own"}),
    "fedavg, share = head": ("fedavg", {"share": "head", "statistics": "own"}),
    "fedavg, compression = bf16": ("fedavg", {"compression": "bf16"} | AVERAGED),
    "fedavg, compression = int8": ("fedavg", {"compression": "int8"} | AVERAGED),
    "fedavg, compression = topk": ("fedavg", {"compression": "topk"} | AVERAGED),
}
"""A method and fields of its config, by name."""


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=pathlib.Path, default=ROOT / "benchmarks" / "results"
    )
    options = parser.parse_args()
    try:
        output.prepare(options.out, "state.csv", "state.md")
    except ValueError as error:
        parser.error(str(error))
    frame = pd.DataFrame([row(name) for name in CASES])
    command = shlex.join(["python", "-m", "benchmarks.state", *sys.argv[1:]])
    about = {"command": command, "commit": commit()}
    write(frame.assign(**about), options.out)
    Console(width=100).print(tables.to_rich(tables.from_frame("Bytes", frame)))


def row(name: str) -> dict[str, Any]:
    """The bytes of a case: on each JAX device, and of each end device on the host."""
    few, many = (shapes(*CASES[name], devices) for devices in (FEW, MANY))
    parts = ("own state", "error of compression", "server's memory")
    rows = dict(zip(parts, map(size, streaming.rows_of(many)), strict=True))
    return {
        "method": name,
        f"jax_bytes_{FEW}": size(streaming.core(few)),
        f"jax_bytes_{MANY}": size(streaming.core(many)),
        "host_bytes_per_device": sum(rows.values()),
        "kept": ", ".join(part for part, count in rows.items() if count),
    }


def shapes(method: str, fields: dict[str, Any], devices: int) -> Federation:
    """The shapes of a federation before its first round, with those of one end device.

    Args:
        method: of `protocol.name`.
        fields: of the config's section `federated`.
        devices: in all.
    """
    config = published("benchmark_state", method)
    config.topology.update(num_edges=1, devices_per_edge=devices)
    config.federated.update(rounds=1, **fields)
    made = federated(
        config,
        build_nets(config, SHAPE, CLASSES),
        Topology(1, devices),
        public=np.zeros((1, *SHAPE), np.uint8),
        num_classes=CLASSES,
    )
    assert made is not None
    return jax.eval_shape(made.engine.init, jax.random.key(0), cohort(made.plan))


def cohort(plan: Any) -> Cohort:
    """The devices of a round, with one blank image each."""
    active = plan.active.shape[1]
    blank = np.zeros(active, np.int32)
    images = np.zeros((active, 1, *SHAPE), np.uint8)
    return Cohort(
        members=Member(
            device=blank,
            edge=blank,
            data=Data(images, np.zeros((active, 1), np.int32), blank),
            counts=np.zeros((active, CLASSES), np.float32),
            share=np.ones(active, np.float32),
            number=blank,
        ),
        fault=blank,
    )


def size(tree: Any) -> int:
    """Bytes of all arrays of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def write(frame: pd.DataFrame, folder: pathlib.Path) -> None:
    """Writes `state.csv`, and `state.md` with what all rows share below the table."""
    frame.to_csv(folder / "state.csv", index=False, lineterminator="\n")
    (folder / "state.md").write_text(page(folder / "state.csv"))


def page(path: pathlib.Path) -> str:
    """The Markdown of a table of `write`."""
    frame = pd.read_csv(path)
    shared = [f"- {name}: {frame.pop(name)[0]}" for name in ("command", "commit")]
    title = "Bytes of a federation's state, on each JAX device and on the host"
    return "\n".join([tables.to_markdown(tables.from_frame(title, frame)), *shared, ""])


if __name__ == "__main__":
    main()
