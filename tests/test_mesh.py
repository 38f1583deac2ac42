"""One client function gives the same numbers wherever it is mapped."""

import os
import re
import subprocess
import sys
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from ecogen_jax import mesh


def train(params, data, key):
    """One step of a small net with dropout, for one client."""

    def loss(params):
        keep = jax.random.bernoulli(key, shape=data["x"].shape)
        x = jnp.where(keep, data["x"], 0.0)
        hidden = jnp.tanh(x @ params["w"] + params["b"][None])
        return jnp.mean(jnp.square(hidden - data["y"]))

    value, grad = jax.value_and_grad(loss)(params)
    return jax.tree.map(lambda p, g: p - 0.5 * g, params, grad), value


def clients(count):
    rng = np.random.default_rng(count)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=(count, *shape)), jnp.float32)

    params = {"w": draw(3, 2), "b": draw(2)}
    data = {"x": draw(5, 3), "y": draw(5, 2)}
    return params, data, jax.random.split(jax.random.key(count), count)


def reference(count):
    """Each client by itself, outside any mapping."""
    one = jax.jit(train)
    each = [
        one(*jax.tree.map(lambda a, i=i: a[i], clients(count))) for i in range(count)
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *each)


REFERENCE: dict[int, Any] = {}


def assert_agrees(result, count):
    expected = REFERENCE.setdefault(count, reference(count))
    assert jax.tree.structure(result) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", ["loop", "scan", "vmap"])
def test_one_device_backends_agree(backend):
    mapped = mesh.map_clients(jax.jit(train), backend=backend, num_devices=1)
    assert_agrees(mapped(*clients(6)), 6)


@pytest.mark.parametrize(
    ("num_devices", "count"), [(1, 6), (2, 8), (4, 6), (8, 8), (8, 6)]
)
@pytest.mark.parametrize("backend", ["shard_map", "pmap"])
def test_device_backends_agree_for_every_number_of_devices(backend, num_devices, count):
    mapped = mesh.map_clients(train, backend=backend, num_devices=num_devices)
    assert_agrees(jax.jit(mapped)(*clients(count)), count)


@pytest.mark.parametrize("chunk", [1, 2, 4, 100])
@pytest.mark.parametrize("backend", ["vmap", "shard_map", "pmap"])
def test_clients_taken_in_chunks_agree(backend, chunk):
    mapped = mesh.map_clients(train, backend=backend, num_devices=2, chunk=chunk)
    assert_agrees(jax.jit(mapped)(*clients(6)), 6)


@pytest.mark.parametrize("backend", ["loop", "scan", "vmap", "shard_map", "pmap"])
def test_an_array_without_numbers_is_mapped_like_any_other(backend):
    mapped = mesh.map_clients(
        lambda a, none: (2 * a, none), backend=backend, num_devices=2, chunk=2
    )
    doubled, none = mapped(jnp.ones((4, 3)), jnp.ones((4, 0)))
    np.testing.assert_array_equal(doubled, np.full((4, 3), 2.0))
    assert none.shape == (4, 0)


def test_a_chunk_bounds_the_memory_of_a_vmap():
    def peak(chunk):
        mapped = mesh.map_clients(
            lambda x: jnp.sin(jnp.outer(x, x)).sum(),
            backend="vmap",
            num_devices=1,
            chunk=chunk,
        )
        clients = jax.ShapeDtypeStruct((64, 50), jnp.float32)
        compiled = jax.jit(mapped).lower(clients).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # All 64 tables of 50 x 50 numbers side by side, or 4 of them.
    assert peak(4) < peak(0) / 8


SIXTY_FOUR = """
import jax, numpy as np
from ecogen_jax import mesh
mesh.start(64)
def fn(x, w):
    return np.float32(0.5) * x @ w, x.sum()
x = jax.random.normal(jax.random.key(0), (128, 3, 4))
w = jax.random.normal(jax.random.key(1), (128, 4, 4))
reference = jax.vmap(fn)(x, w)
for backend in ("shard_map", "pmap"):
    placed = mesh.place((x, w), num_devices=64)
    assert len(placed[0].sharding.device_set) == 64
    mapped = mesh.map_clients(fn, backend=backend, num_devices=64)
    for a, b in zip(jax.jit(mapped)(*placed), reference):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
"""


def test_64_devices_agree_with_one():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SIXTY_FOUR],
        check=False,
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("XLA_FLAGS")},
    )
    assert done.returncode == 0, done.stderr


def test_auto_agrees_for_a_prime_number_of_clients():
    mapped = mesh.map_clients(train, backend="auto", num_devices=4)
    assert_agrees(jax.jit(mapped)(*clients(5)), 5)


@pytest.mark.parametrize("backend", ["vmap", "shard_map", "pmap"])
def test_a_jitted_mapping_traces_its_function_once(backend):
    traces = []

    def double(x):
        traces.append(x)
        return 2 * x

    mapped = jax.jit(mesh.map_clients(double, backend=backend, num_devices=2))
    for start in (0.0, 1.0):
        x = start + jnp.arange(4.0)
        np.testing.assert_array_equal(mapped(x), 2 * x)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("num_clients", "num_devices", "expected"),
    [
        (10, 8, 5),
        (10, 4, 2),
        (7, 4, 1),
        (7, 8, 7),
        (3, 8, 3),
        (8, 8, 8),
        (1, 8, 1),
        (32, 100, 8),  # there are only 8
    ],
)
def test_num_shards_is_the_largest_divisor_that_fits(
    num_clients, num_devices, expected
):
    assert mesh.num_shards(num_clients, num_devices) == expected
    built = mesh.client_mesh(num_clients, num_devices)
    assert built.shape == {"client": expected}


def test_any_number_of_tpus_makes_a_mesh_one_of_each_process_first(monkeypatch):
    def tpu(number):  # 2 x 4 chips of two hosts
        return mock.Mock(
            spec=jax.Device,
            id=number,
            platform="tpu",
            device_kind="TPU v5 lite",
            coords=(number % 2, number // 2, 0),
            core_on_chip=0,
            process_index=number // 4,
        )

    chips = [tpu(number) for number in range(8)]
    monkeypatch.setattr(jax, "devices", lambda: chips)
    monkeypatch.setattr(jax, "local_devices", lambda: chips[:4])
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    built = mesh.client_mesh(10, 8)
    assert [chip.id for chip in built.devices] == [0, 4, 1, 5, 2]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", "--xla_cpu_collective_call_terminate_timeout_seconds=21600"),
        ("--a=1", "--a=1 --xla_cpu_collective_call_terminate_timeout_seconds=21600"),
        ("--xla_cpu_collective_call_terminate_timeout_seconds=9",) * 2,
        ("flags.txt", "flags.txt"),  # a file
    ],
)
def test_simulated_devices_wait_for_hours_unless_told_otherwise(flags, expected):
    assert mesh.patient(flags) == expected


def test_place_spreads_clients_evenly_and_keeps_values():
    tree = {"a": np.arange(12.0).reshape(6, 2), "b": np.arange(6)}
    placed = mesh.place(tree, num_devices=4)
    jax.tree.map(np.testing.assert_array_equal, placed, tree)
    for leaf in placed.values():
        assert leaf.sharding.spec == PartitionSpec("client")
        assert [s.data.shape[0] for s in leaf.addressable_shards] == [2, 2, 2]
        assert len({s.device for s in leaf.addressable_shards}) == 3


def test_placed_clients_are_trained_where_they_lie():
    placed = mesh.place(clients(8), num_devices=4)
    mapped = mesh.map_clients(train, backend="shard_map", num_devices=4)
    params, _ = jax.jit(mapped)(*placed)
    assert params["w"].sharding.device_set == placed[0]["w"].sharding.device_set
    assert params["w"].sharding.num_devices == 4


def test_an_empty_tree_needs_no_place():
    assert mesh.place({}, num_devices=4) == {}


def test_to_host_leaves_numpy_arrays():
    tree = mesh.to_host({"a": jnp.ones(2), "b": (jnp.zeros(()), None)})
    assert type(tree["a"]) is np.ndarray
    assert type(tree["b"][0]) is np.ndarray
    assert tree["b"][1] is None


def test_loop_names_the_client_that_failed():
    def root(x):
        if float(x) < 0:
            raise ValueError("negative")
        return jnp.sqrt(x)

    mapped = mesh.map_clients(root, backend="loop", num_devices=1)
    np.testing.assert_array_equal(mapped(jnp.asarray([4.0, 9.0])), [2.0, 3.0])
    with pytest.raises(mesh.ClientError, match="client 2 of 4: negative") as caught:
        mapped(jnp.asarray([4.0, 9.0, -1.0, 1.0]))
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("platform", "num_devices", "expected"),
    [
        ("cpu", 1, "shard_map"),
        ("cpu", 8, "shard_map"),
        ("gpu", 1, "vmap"),
        ("gpu", 4, "shard_map"),
    ],
)
def test_auto_follows_the_machine(monkeypatch, platform, num_devices, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(jax, "device_count", lambda: num_devices)
    assert mesh.resolve("auto") == expected
    assert mesh.resolve("loop") == "loop"


def test_an_unknown_backend_is_named_with_what_is_allowed():
    with pytest.raises(ValueError, match=r"mesh.backend is 'tpu'; allowed: auto, loop"):
        mesh.map_clients(train, backend="tpu", num_devices=1)


def test_totals_are_added_up_in_one_exchange_for_each_dtype():
    totals = {
        "whole": jnp.arange(8, dtype=jnp.int32).reshape(4, 2),
        "a": jnp.arange(4.0),
        "b": jnp.arange(24.0).reshape(4, 2, 3),
    }
    placed = mesh.place(totals, num_devices=4)
    compiled = jax.jit(mesh.added_up).lower(placed).compile()
    for name, total in compiled(placed).items():
        assert total.dtype == totals[name].dtype
        np.testing.assert_array_equal(total, totals[name].sum(axis=0))
    assert exchanges(compiled) == 2


def exchanges(compiled):
    """Arrays for which the devices of a compiled program wait for each other."""
    starts = re.findall(r" = (.+?) (?:all-reduce|all-gather)\(", compiled.as_text())
    return sum(len(re.findall(r"\w+\[", shape)) for shape in starts)


STARTED = """
from ecogen_jax import mesh
mesh.start(3)
import jax
print(jax.device_count(), jax.config.values["jax_compilation_cache_dir"])
try:
    jax.numpy.ones(2) + jax.numpy.ones((2, 2))
except ValueError:
    print("strict")
"""


@pytest.mark.parametrize("given", [False, True])
def test_start_splits_the_cpu_and_keeps_programs(tmp_path, given):
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("JAX_COMPILATION_CACHE_DIR", "JAX_NUM_CPU_DEVICES")
    }
    chosen = tmp_path / "elsewhere"
    variable = {"JAX_COMPILATION_CACHE_DIR": str(chosen)} if given else {}
    done = subprocess.run(
        [sys.executable, "-c", STARTED],
        env={**inherited, **variable, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    cache = chosen if given else tmp_path / ".cache" / "ecogen_jax" / "compiled"
    assert done.stdout.splitlines() == [f"3 {cache}", "strict"]


def test_start_is_too_late_once_jax_is_in_use():
    jax.devices()
    with pytest.raises(RuntimeError, match="num_cpu_devices"):
        mesh.start(3)
