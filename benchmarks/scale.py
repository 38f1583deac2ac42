"""Time and memory of rounds with up to 100,000 devices, on generated arrays.

    python -m benchmarks.scale [--out benchmarks/results]

FedAvg with logistic regression 784-10, 20 samples per end device in one batch, two
simulated JAX devices; and SCAFFOLD, of which the host keeps a control variate for each
end device. Each cell is a process: its first round compiles; the result is
the median of the next five rounds, including the selection of the samples and their
transfer to the JAX devices, and of what the devices keep. The samples of 1,000 devices
are used repeatedly: those of 100,000 would take 1.6 GB, of which only a cohort is read.
Memory is the peak of the process. Writes `scale.csv` and `scale.png`, and how they
compare with the bars on time, memory and growth, `scale_bars.csv` and `scale_bars.md`.
"""

import argparse
import json
import os
import pathlib
import resource
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks import conv, nets, output, rows, tasks
from benchmarks.workers import ROOT, TOLD_LAST, WorkerError, failure
from ecogen_jax import config as config_lib
from ecogen_jax import mesh
from ecogen_jax.data.partition import Held, hold
from ecogen_jax.relay.federated import streaming
from ecogen_jax.relay.federated.base import Member
from ecogen_jax.relay.federated.engine import Cohort
from ecogen_jax.relay.learn import Data
from ecogen_jax.relay.parties import Nets, Topology
from ecogen_jax.run.build_federated import federated
from ecogen_jax.run.command import positive
from papers_repro.origin import commit, processor

SIZES, COHORTS = (1000, 10_000, 100_000), (2000, 5000, 10_000, 20_000, 50_000, 100_000)
FREE, KEEPING = "fedavg", "scaffold"
"""A method without anything for each device, and one with."""

CELLS = (
    *((size, 1000, method) for method in (FREE, KEEPING) for size in SIZES),
    *((max(SIZES), cohort, FREE) for cohort in COHORTS),
)
"""Devices in all, devices in a round, method."""

POOL = 1000
"""Devices whose samples are in memory; the others have the same."""

CORES = 2
REPEATS = 5

BARS = ROOT / "benchmarks" / "scale_bars.csv"
FILES = ("scale.csv", "scale.png", "scale_bars.csv", "scale_bars.md")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=pathlib.Path, default=ROOT / "benchmarks" / "results"
    )
    parser.add_argument("--cell", type=positive, nargs=2, metavar=("DEVICES", "COHORT"))
    parser.add_argument("--method", choices=(FREE, KEEPING), default=FREE)
    options = parser.parse_args()
    if options.cell:
        devices, cohort = options.cell
        print(json.dumps(measured(devices, cohort, options.method)))
        return
    try:
        output.prepare(options.out, *FILES)
    except ValueError as error:
        parser.error(str(error))
    cores = sorted(os.sched_getaffinity(0))[-CORES:]
    os.sched_setaffinity(0, cores)  # cells inherit them
    found = []
    for cell in CELLS:
        try:
            found.append(in_process(*cell))
        except WorkerError as error:
            parser.exit(1, f"error: {error}\n")
        print(found[-1])
    frame = pd.DataFrame(found)
    frame["machine"] = f"{processor()}, {len(cores)} cores"
    frame["versions"] = conv.versions()
    frame["command"] = shlex.join(["python", "-m", "benchmarks.scale", *sys.argv[1:]])
    frame["commit"] = commit()
    frame.to_csv(options.out / "scale.csv", index=False)
    plot(frame, options.out / "scale.png")
    rows.write("scale_bars", judged(frame), options.out)


def in_process(devices: int, cohort: int, method: str) -> dict[str, Any]:
    """`measured` in a process of its own.

    Raises:
        WorkerError: the process has failed.
    """
    command = ["python", "-m", "benchmarks.scale", "--method", method]
    command += ["--cell", str(devices), str(cohort)]
    done = subprocess.run(
        [sys.executable, *command[1:]],
        cwd=ROOT,
        env=os.environ | dict([TOLD_LAST]),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise WorkerError(
            f"{method}, {devices} devices, {cohort} in a round: "
            f"{failure(done.returncode, done.stderr)}; nothing is written; to see all "
            f"that it said: {shlex.join(command)}"
        )
    return json.loads(done.stdout)


def measured(devices: int, cohort: int, method: str) -> dict[str, Any]:
    """Seconds of a round and gigabytes of this process."""
    mesh.start(CORES)
    task = tasks.TASKS["many"]._replace(clients=cohort)
    net = nets.of_task(task)
    config = config_lib.default()
    config.protocol.name = method
    config.topology.update(num_edges=1, devices_per_edge=devices)
    config.federated.update(rounds=1, active=cohort, steps=task.steps)
    config.federated.update(batch_size=task.batch, learning_rate=tasks.LEARNING_RATE)
    # Both, however small the round is: `auto` would give a small one to one core.
    config.mesh.update(backend="shard_map", num_devices=CORES)
    made = federated(
        config,
        Nets(net, net, (net,), generator=net),  # never called: there is none
        Topology(1, devices),
        public=np.zeros((1, *task.shape), np.uint8),
        num_classes=task.classes,
    )
    assert made is not None
    device, pool = made.plan.active[0], samples(task._replace(clients=POOL))
    shared = mesh.everywhere(cohort, CORES)
    run = jax.jit(
        made.engine.round, donate_argnums=0, out_shardings=(shared, None, None)
    )
    first = jax.jit(made.engine.init, out_shardings=shared)(
        jax.random.key(0), brought(task, device, pool)
    )
    jax.block_until_ready(first)  # as it holds the cohort until then
    state = streaming.everybody(first, devices)
    state = streaming.with_rows(state, streaming.kept_on_host(state))
    taken = []
    for number in range(1 + REPEATS):
        started = time.perf_counter()
        given = streaming.handed_out(state, brought(task, device, pool))
        placed = mesh.place(given, num_devices=CORES)
        core = streaming.core(state)
        after, metrics, said = run(core, placed, jax.random.key(number))
        jax.device_get(metrics)
        state = streaming.put_back(state, jax.block_until_ready(after), device, said)
        del given, placed, said
        taken.append(time.perf_counter() - started)
        # Only the work of a round is timed, so the same round is repeated.
        state = replace(state, number=jnp.zeros_like(state.number))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "method": method,
        "devices": devices,
        "cohort": cohort,
        "round_s": float(np.median(taken[1:])),
        "round_mean_s": float(np.mean(taken[1:])),
        "round_std_s": float(np.std(taken[1:], ddof=1)),
        "round_worst_s": max(taken[1:]),
        "memory_gb": memory * 1024 / 1e9,
    }


def judged(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of the bars.

    Args:
        frame: what `main` has measured, and on what.
    """
    free = frame[frame["method"] == FREE]
    largest = free[free["devices"] == max(SIZES)]
    of_cohort = largest.set_index("cohort").to_dict("index")
    found: dict[str, dict[str, float]] = {
        "scale.exponent": {"ours_median": exponent(largest)}
    }
    for name, cohort in (("10k", 10_000), ("100k", 100_000)):
        cell = of_cohort[cohort]
        found[f"scale.{name}.gb"] = {"ours_median": cell["memory_gb"]}
        found[f"scale.{name}.seconds"] = {
            "ours_median": cell["round_s"],
            "ours_mean": cell["round_mean_s"],
            "ours_std": cell["round_std_s"],
            "ours_worst": cell["round_worst_s"],
            "repeats": REPEATS,
        }
    origin = ("machine", "versions", "command", "commit")
    about: dict[str, Any] = {name: frame[name].iloc[0] for name in origin}
    about |= {"kind": "measured", "judged": "ours", "clock": "wall", "cores": CORES}
    bars = [
        {str(name): value for name, value in bar.items()}
        for bar in rows.read(BARS).to_dict("records")
    ]
    return [
        bar
        | found[bar["id"]]
        | about
        | {"verdict": rows.verdict(found[bar["id"]]["ours_median"], bar)}
        for bar in bars
    ]


def exponent(cells: pd.DataFrame) -> float:
    """Slope of the logarithm of the time of a round over that of its cohort."""
    return float(np.polyfit(np.log(cells["cohort"]), np.log(cells["round_s"]), 1)[0])


def samples(task: tasks.Task) -> Held:
    """The samples of the devices of a task: noise."""
    images, labels = tasks.data(task)
    parts = [*np.arange(labels.size).reshape(labels.shape)]
    return hold(images.reshape(-1, *task.shape), labels.reshape(-1), parts)


def brought(task: tasks.Task, device: np.ndarray, pool: Held) -> Cohort:
    """A cohort on noise; its samples are selected from those of a few devices."""
    size = len(device)
    return Cohort(
        members=Member(
            device=device,
            edge=np.zeros(size, np.int32),
            data=Data(*pool.padded(device % POOL)),
            counts=np.zeros((size, task.classes), np.float32),
            share=np.ones(size, np.float32),
            number=np.zeros(size, np.int32),
        ),
        fault=np.zeros(size, np.int32),
    )


def plot(frame: pd.DataFrame, path: pathlib.Path) -> None:
    """Draws both against the cohort, and the memory against the federation."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    time_axes, memory_axes, federation_axes = figure.subplots(1, 3)
    for method, table in frame.groupby("method"):
        largest = table[table["devices"] == max(SIZES)].sort_values("cohort")
        fixed = table[table["cohort"] == frame["cohort"].min()].sort_values("devices")
        for axes, part, x, y, label in (
            (time_axes, largest, "cohort", "round_s", "seconds a round"),
            (memory_axes, largest, "cohort", "memory_gb", "GB"),
            (federation_axes, fixed, "devices", "memory_gb", "GB"),
        ):
            axes.plot(part[x], part[y], marker="o", label=method)
            axes.set(xscale="log", ylabel=label)
            axes.set_xlabel("devices in a round" if x == "cohort" else "devices in all")
    time_axes.set(yscale="log")
    time_axes.legend()
    for axes in (memory_axes, federation_axes):
        axes.set(ylim=(0, 1.05 * frame["memory_gb"].max()))
    figure.suptitle("logistic regression 784-10, generated images", fontsize=9)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
