"""Strict numerics for the whole suite, on 8 simulated devices, without a network."""

import os
import pathlib

CACHE = pathlib.Path(__file__).resolve().parent.parent / ".cache"

# Through the environment, so that runs which a test starts as a process have it too.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("ECOGEN_DATA", str(CACHE / "data"))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "jax"))
# Simulated devices share the few real cores; a slow collective is not a deadlock.
# Tests compile far longer than they run, so the compiler optimises nothing.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_cpu_collective_call_terminate_timeout_seconds=600"
    + " --xla_backend_optimization_level=0"
)

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
