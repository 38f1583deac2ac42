"""Where client functions run: one function for one client, mapped over many.

Everything below this file is written for a single party. `map_clients` runs it for
all parties of a tier, whose arrays carry a leading `client` axis, and `place` puts
those arrays where the mapped function wants them.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ecogen_jax.types import PyTree

BACKENDS = ("auto", "loop", "scan", "vmap", "shard_map", "pmap")

Mapped = Callable[..., Any]


class ClientError(RuntimeError):
    """A client function failed; the message names the client."""


def start(num_devices: int) -> None:
    """Sets JAX up for a run; call once, before JAX is used.

    A CPU is split into `num_devices` simulated devices of one core each, compiled
    programs are kept on disk for the next start, and numbers are never promoted in
    silence.

    Raises:
      RuntimeError: JAX has already started its devices.
    """
    jax.config.update("jax_num_cpu_devices", num_devices)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    if jax.config.values["jax_compilation_cache_dir"] is None:
        cache = Path("~/.cache/ecogen_jax/compiled").expanduser()
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def resolve(backend: str) -> str:
    """What `auto` means on the machine at hand.

    On a CPU, devices of one core each with a scan over clients inside each beat a
    `vmap`, which turns convolutions into slow grouped ones; an accelerator with one
    device wants the `vmap`.
    """
    if backend not in BACKENDS:
        raise ValueError(f"mesh.backend is {backend!r}; allowed: {', '.join(BACKENDS)}")
    if backend != "auto":
        return backend
    if jax.default_backend() != "cpu" and jax.device_count() == 1:
        return "vmap"
    return "shard_map"


def num_shards(num_clients: int, num_devices: int) -> int:
    """Largest number of devices, at most `num_devices`, that divides the clients.

    An uneven split would train padding, so fewer devices are used instead.
    """
    limit = min(num_clients, num_devices, jax.device_count())
    return max(d for d in range(1, limit + 1) if num_clients % d == 0)


def client_mesh(num_clients: int, num_devices: int) -> Mesh:
    """A one-axis mesh, `client`, for that many clients."""
    shards = num_shards(num_clients, num_devices)
    return jax.make_mesh(
        (shards,),
        ("client",),
        axis_types=(AxisType.Auto,),
        devices=jax.devices()[:shards],
    )


def place(tree: PyTree, *, num_devices: int) -> PyTree:
    """Puts arrays with a leading client axis onto the devices that will use them."""
    leaves = jax.tree.leaves(tree)
    if not leaves:
        return tree
    mesh = client_mesh(leaves[0].shape[0], num_devices)
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec("client")))


def replicate(tree: PyTree, *, num_clients: int, num_devices: int) -> PyTree:
    """Puts arrays that all clients share onto every device that those clients use."""
    return jax.device_put(tree, everywhere(num_clients, num_devices))


def everywhere(num_clients: int, num_devices: int) -> NamedSharding:
    """Where `replicate` puts arrays; also for `out_shardings` of a jitted function."""
    return NamedSharding(client_mesh(num_clients, num_devices), PartitionSpec())


def map_clients(
    fn: Callable[..., Any],
    *,
    backend: str,
    num_devices: int,
    chunk: int = 0,
    shared: tuple[PyTree, ...] = (),
) -> Mapped:
    """Maps a one-client function over a leading axis of every argument.

    Args:
      fn: pure function of any number of pytrees, written for one client.
      backend: `loop` (one call after another; an error names the client), `scan` (one
        after another in one program), `vmap` (side by side), `shard_map` (split over
        devices, see `chunk` for what each does with its share), `pmap` (the same
        through `jax.pmap`) or `auto`.
      num_devices: devices to use at most; fewer if they do not divide the clients.
      chunk: clients that a device takes side by side, by `vmap`, before it takes the
        next ones; it bounds the memory. 0 leaves it to the backend: all of them in
        `vmap` and on accelerators, one within the shards of a CPU.
      shared: the first arguments of `fn`, where all clients have the same. A function
        that closes over them instead may not index them: a `shard_map` refuses it.

    Returns:
      A function of the other arguments with a leading client axis `[clients, ...]`
      on every leaf. All backends give the same numbers up to rounding.
    """
    backend, one = resolve(backend), functools.partial(fn, *shared)
    if backend == "loop":
        return _loop(one)
    if backend == "scan":
        return _in_chunks(one, 1)
    if backend == "vmap":
        return _in_chunks(one, chunk)
    size = chunk or int(jax.default_backend() == "cpu")

    def share(common: tuple[PyTree, ...], own: tuple[PyTree, ...]) -> PyTree:
        return _in_chunks(functools.partial(fn, *common), size)(*own)

    def mapped(*arguments: PyTree) -> PyTree:
        clients = jax.tree.leaves(arguments)[0].shape[0]
        mesh = client_mesh(clients, num_devices)
        if backend == "pmap":
            return _pmap(share, shared, arguments, mesh)
        spec = PartitionSpec("client")
        # Nothing is exchanged between clients here, so there is no replication of
        # values across devices for JAX to check.
        sharded = jax.shard_map(
            share,
            mesh=mesh,
            in_specs=(PartitionSpec(), spec),
            out_specs=spec,
            check_vma=False,
        )
        return sharded(shared, arguments)

    return mapped


def _in_chunks(fn: Mapped, chunk: int) -> Mapped:
    """Maps on one device: `chunk` clients at once, 0 for all of them."""

    def mapped(*arguments: PyTree) -> PyTree:
        clients = jax.tree.leaves(arguments)[0].shape[0]
        if chunk != 1 and (chunk == 0 or chunk >= clients):
            return jax.vmap(fn)(*arguments)
        return jax.lax.map(
            lambda one: fn(*one), arguments, batch_size=chunk if chunk > 1 else None
        )

    return mapped


def _pmap(
    fn: Mapped, shared: tuple[PyTree, ...], arguments: tuple[PyTree, ...], mesh: Mesh
) -> PyTree:
    shards = mesh.devices.size
    split = jax.tree.map(lambda a: a.reshape(shards, -1, *a.shape[1:]), arguments)
    everybody = jax.tree.map(
        lambda a: jnp.broadcast_to(a[None], (shards, *a.shape)), shared
    )
    results = jax.pmap(fn, devices=list(mesh.devices.flat))(everybody, split)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), results)


def _loop(fn: Callable[..., Any]) -> Mapped:
    def mapped(*arguments: PyTree) -> PyTree:
        clients = jax.tree.leaves(arguments)[0].shape[0]
        results = []
        for client in range(clients):
            one = jax.tree.map(lambda a, client=client: a[client], arguments)
            try:
                results.append(fn(*one))
            except Exception as error:
                raise ClientError(f"client {client} of {clients}: {error}") from error
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)

    return mapped
