"""Maps one-client functions over many clients and the JAX devices.

Client functions are written for a single party. `map_clients` runs them for all
parties of a tier, whose arrays have a leading `client` axis, and `place` puts
those arrays onto the JAX devices that use them. In this file, a device is a JAX device,
of any process (see `distributed`); each process puts only the data of its own devices
on them.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ecogen_jax.types import PyTree

BACKENDS = ("auto", "loop", "scan", "vmap", "shard_map", "pmap")

PATIENCE_S = 6 * 3600
"""Seconds that simulated devices wait for the last of them."""

Mapped = Callable[..., Any]


class ClientError(RuntimeError):
    """A client function failed; the message names the client."""


def start(num_devices: int) -> None:
    """Sets JAX up for a run; call once, before JAX is used.

    A CPU is split into `num_devices` simulated devices of one core each, compiled
    programs are cached on disk for the next start, and dtypes and ranks are never
    promoted implicitly. Each of several processes simulates all `num_devices`, because
    rounding in XLA depends on their number: so the same config gives the same numbers
    in any number of processes. Simulated devices wait for each other as long as a round
    takes.

    Raises:
      RuntimeError: JAX has already started its devices.
    """
    os.environ["XLA_FLAGS"] = patient(os.environ.get("XLA_FLAGS", ""))
    jax.config.update("jax_num_cpu_devices", num_devices)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    if jax.config.values["jax_compilation_cache_dir"] is None:
        cache = Path("~/.cache/ecogen_jax/compiled").expanduser()
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def patient(flags: str) -> str:
    """XLA's flags, with hours for a simulated device that lags behind the others.

    By default XLA assumes a deadlock and aborts the process after 40 s; on busy cores,
    a long round takes longer. A limit that is already set stays, and so does the name
    of a file with flags, which XLA reads instead.
    """
    limit = "--xla_cpu_collective_call_terminate_timeout_seconds"
    names_file = flags.strip() and not flags.lstrip().startswith("--")
    if limit in flags or names_file:
        return flags
    return f"{flags} {limit}={PATIENCE_S}".strip()


def resolve(backend: str) -> str:
    """The meaning of `auto` on this machine.

    On a CPU, simulated devices of one core each with a scan over their clients are
    faster than a `vmap`, which turns convolutions into slow grouped ones. For a single
    accelerator, `auto` is the `vmap`.
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

    An uneven split would train on padding, so fewer devices are used instead.
    """
    limit = min(num_clients, num_devices, jax.device_count())
    return max(d for d in range(1, limit + 1) if num_clients % d == 0)


def client_mesh(num_clients: int, num_devices: int) -> Mesh:
    """A one-axis mesh, `client`, for that many clients.

    It has devices of every process. If there are too few shares of clients for all
    processes, each process has a mesh of its own devices instead and does the same work
    as the others: this takes no more time, and nothing has to be sent.

    Args:
      num_clients: how many there are.
      num_devices: devices to use at most, of all processes together.
    """
    processes, devices = jax.process_count(), _devices()
    shards = num_shards(num_clients, num_devices)
    if shards < processes:
        devices = jax.local_devices()
        shards = num_shards(num_clients, min(num_devices, len(devices)))
    # Not `jax.make_mesh`, which sorts devices by their position and refuses a number of
    # TPUs that do not form a cuboid, such as five of eight.
    return Mesh(np.array(devices[:shards]), ("client",), axis_types=(AxisType.Auto,))


def _devices() -> list[jax.Device]:
    """All devices: one of each process, then the second of each, and so on."""
    processes = range(jax.process_count())
    each = [[d for d in jax.devices() if d.process_index == p] for p in processes]
    return [device for row in zip(*each, strict=True) for device in row]


def place(tree: PyTree, *, num_devices: int) -> PyTree:
    """Puts arrays with a leading client axis onto the devices that will use them."""
    leaves = jax.tree.leaves(tree)
    if not leaves:
        return tree
    mesh = client_mesh(leaves[0].shape[0], num_devices)
    return _put(tree, NamedSharding(mesh, PartitionSpec("client")))


def replicate(tree: PyTree, *, num_clients: int, num_devices: int) -> PyTree:
    """Puts arrays that all clients share onto every device that those clients use."""
    return _put(tree, everywhere(num_clients, num_devices))


def _put(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Puts arrays that every process has whole; each process puts its devices' part."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_callback(
            leaf.shape, sharding, leaf.__getitem__
        ),
        tree,
    )


def to_host(tree: PyTree) -> PyTree:
    """Copies arrays to the host, so that stages on different devices can share them.

    If an array is distributed over processes, all of them have to call this, and each
    gets the whole array.
    """

    def copied(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not (
            leaf.is_fully_addressable or leaf.is_fully_replicated
        ):
            return multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(copied, tree)


def of_last_share(tree: PyTree) -> PyTree:
    """Copies the last entry of this process to the host, without any exchange.

    Args:
      tree: arrays `[shares, ...]`, split over JAX devices by shares, if at all.

    Returns:
      Leaves `[1, ...]`.
    """

    def last(leaf: jax.Array) -> np.ndarray:
        shard = leaf.addressable_shards[-1].data
        assert shard.shape[1:] == leaf.shape[1:], leaf.sharding
        return np.asarray(shard)[-1:]

    return jax.tree.map(last, tree)


def everywhere(num_clients: int, num_devices: int) -> NamedSharding:
    """The sharding of `replicate`; also for `out_shardings` of a jitted function."""
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
      shared: the first arguments of `fn`, the same for all clients. A function that
        closes over them instead may not index them: `shard_map` refuses it.

    Returns:
      A function of the other arguments with a leading client axis `[clients, ...]`
      on every leaf. All backends give the same numbers up to rounding.
    """

    def alone(*arguments: PyTree) -> tuple[PyTree, tuple[()]]:
        return fn(*arguments), ()

    folded = fold_clients(
        alone,
        Fold((), lambda total, value: total),
        backend=backend,
        num_devices=num_devices,
        chunk=chunk,
        shared=shared,
    )
    return lambda *arguments: folded(*arguments)[0]


class Fold(NamedTuple):
    """How the values of many clients are reduced to one while they are mapped.

    Attributes:
      start: the total before the first client: arrays or their shapes, taken as zeros.
      add: `add(total, value) -> total`, one client after another.
    """

    start: PyTree
    add: Callable[[PyTree, PyTree], PyTree]


def fold_clients(
    fn: Callable[..., Any],
    fold: Fold,
    *,
    backend: str,
    num_devices: int,
    chunk: int = 0,
    shared: tuple[PyTree, ...] = (),
) -> Mapped:
    """Maps like `map_clients`, and folds values that would take too much memory.

    If clients come one after another, their values are never in memory together: the
    memory is that of one client and one total, whatever the number of clients.

    Args:
      fn: for one client, `fn(*shared, *own) -> (kept, value)`.
      fold: of the values.
      backend: see `map_clients`, as for the others.
      num_devices: likewise.
      chunk: likewise.
      shared: likewise.

    Returns:
      A function of the other arguments that gives the `kept` values, `[clients, ...]`,
      and one total for each device's share of the clients, `[shares, ...]`.
    """
    backend = resolve(backend)
    if backend == "loop":
        return _loop(functools.partial(fn, *shared), fold)
    # By default clients run in parallel on accelerators, where that is fast.
    sizes = {"scan": 1, "vmap": chunk}
    size = sizes.get(backend, chunk or int(jax.default_backend() == "cpu"))

    def share(common: tuple[PyTree, ...], own: tuple[PyTree, ...]) -> PyTree:
        kept, total = _in_chunks(functools.partial(fn, *common), fold, own, size)
        return kept, jax.tree.map(lambda leaf: leaf[None], total)

    def mapped(*arguments: PyTree) -> PyTree:
        if backend in ("scan", "vmap"):
            return share(shared, arguments)
        clients = jax.tree.leaves(arguments)[0].shape[0]
        mesh = client_mesh(clients, num_devices)
        if backend == "pmap":
            return _pmap(share, shared, arguments, mesh)
        spec = PartitionSpec("client")
        # Clients exchange nothing here, so JAX has no replication to check.
        sharded = jax.shard_map(
            share,
            mesh=mesh,
            in_specs=(PartitionSpec(), spec),
            out_specs=spec,
            check_vma=False,
        )
        return sharded(shared, arguments)

    return mapped


def added_up(totals: PyTree) -> PyTree:
    """Adds up the totals of the shares, in one exchange for each dtype.

    One exchange per array would make all devices wait for each other once per array;
    250 simulated devices on two cores take 20 ms for that, whatever the size of the
    array.

    Args:
      totals: `[shares, ...]`, as `fold_clients` gives them.

    Returns:
      Leaves `[...]`.
    """
    leaves, structure = jax.tree.flatten(totals)
    sums: list[Any] = [None] * len(leaves)
    for dtype in dict.fromkeys(leaf.dtype for leaf in leaves):
        chosen = [at for at, leaf in enumerate(leaves) if leaf.dtype == dtype]
        flat = [leaves[at].reshape(leaves[at].shape[0], -1) for at in chosen]
        total = jnp.sum(jnp.concatenate(flat, axis=1), axis=0, dtype=dtype)
        ends = np.cumsum([each.shape[1] for each in flat])[:-1]
        for at, part in zip(chosen, jnp.split(total, ends), strict=True):
            sums[at] = part.reshape(leaves[at].shape[1:])
    return jax.tree.unflatten(structure, sums)


def _in_chunks(
    fn: Mapped, fold: Fold, arguments: tuple[PyTree, ...], chunk: int
) -> tuple[PyTree, PyTree]:
    """Maps and folds on one device: `chunk` clients at once, 0 for all of them."""
    clients = jax.tree.leaves(arguments)[0].shape[0]
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), fold.start)

    def one(total: PyTree, own: PyTree) -> tuple[PyTree, PyTree]:
        kept, value = fn(*own)
        return fold.add(total, value), kept

    def several(total: PyTree, own: PyTree) -> tuple[PyTree, PyTree]:
        kept, values = jax.vmap(fn)(*own)
        count = jax.tree.leaves(own)[0].shape[0]
        total, _ = jax.lax.scan(
            lambda total, value: (fold.add(total, value), None),
            total,
            values,
            length=count,
        )
        return total, kept

    if chunk == 1:
        total, kept = jax.lax.scan(one, start, arguments)
        return kept, total
    if chunk == 0 or chunk >= clients:
        total, kept = several(start, arguments)
        return kept, total
    whole = clients - clients % chunk
    split = jax.tree.map(
        lambda a: a[:whole].reshape(whole // chunk, chunk, *a.shape[1:]), arguments
    )
    total, kept = jax.lax.scan(several, start, split)
    kept = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), kept)
    if whole < clients:
        total, rest = several(total, jax.tree.map(lambda a: a[whole:], arguments))
        kept = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), kept, rest)
    return kept, total


def _pmap(
    fn: Mapped, shared: tuple[PyTree, ...], arguments: tuple[PyTree, ...], mesh: Mesh
) -> PyTree:
    shards = mesh.devices.size
    each = jax.tree.leaves(arguments)[0].shape[0] // shards
    split = jax.tree.map(lambda a: a.reshape(shards, each, *a.shape[1:]), arguments)
    everybody = jax.tree.map(
        lambda a: jnp.broadcast_to(a[None], (shards, *a.shape)), shared
    )
    results = jax.pmap(fn, devices=list(mesh.devices.flat))(everybody, split)
    return jax.tree.map(
        lambda a: a.reshape(a.shape[0] * a.shape[1], *a.shape[2:]), results
    )


def _loop(fn: Callable[..., Any], fold: Fold) -> Mapped:
    def mapped(*arguments: PyTree) -> PyTree:
        clients = jax.tree.leaves(arguments)[0].shape[0]
        results = []
        total = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), fold.start)
        for client in range(clients):
            one = jax.tree.map(lambda a, client=client: a[client], arguments)
            try:
                kept, value = fn(*one)
            except Exception as error:
                raise ClientError(f"client {client} of {clients}: {error}") from error
            results.append(kept)
            total = fold.add(total, value)
        kept = jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)
        return kept, jax.tree.map(lambda leaf: leaf[None], total)

    return mapped
