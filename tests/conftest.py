"""Strict numerics for the whole suite, on 8 simulated devices, without a network."""

import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"

# Through the environment, so that runs which a test starts as a process have it too.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # also where there is a GPU
os.environ.setdefault("ECOGEN_DATA", str(CACHE / "data"))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "jax"))
# Simulated devices share the few real cores; a slow collective is not a deadlock.
# Tests compile far longer than they run, so the compiler optimises nothing, and takes
# the older of its two ways to write loops, in half the time.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_cpu_collective_call_terminate_timeout_seconds=600"
    + " --xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false"
)

import filelock  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


class Finished(NamedTuple):
    """A finished run: its folder, and what the script printed."""

    path: pathlib.Path
    printed: str


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Finished:
    """One smoke run of the main job, two cycles, for every test that reads a run.

    A process of its own, as a user's: the number of simulated devices changes how XLA
    rounds, so that only such a run is equal to others to the last digit.
    """
    # Workers of one test run share it: the first makes it, the others wait for it.
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    printed = shared / "finished.txt"
    with filelock.FileLock(shared / "finished.lock"):
        if not printed.exists():
            printed.write_text(_smoke_run(shared / "runs"))
    (path,) = shared.glob("runs/*/*")
    return Finished(path, printed.read_text())


def _smoke_run(workdir: pathlib.Path) -> str:
    spec = ["--config", "configs/relay_cycle.py:smoke"]
    done = subprocess.run(
        [sys.executable, "scripts/train.py", *spec, f"--config.run.workdir={workdir}"],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
