"""Where client functions run: one function for one client, mapped over many.

Everything below this file is written for a single party. `map_clients` runs it for
all parties of a tier, whose arrays carry a leading `client` axis, and `place` puts
those arrays where the mapped function wants them. The devices are those of all
processes (see `distributed`): each brings to its own what they hold, and no more.
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
    programs are kept on disk for the next start, and numbers are never promoted in
    silence. Each of several processes makes all `num_devices`: XLA rounds by their
    number, so the same config gives the same numbers in any number of processes.
    Simulated devices wait for each other as long as a round takes.

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

    XLA takes it for a deadlock and aborts the process after 40 s: on cores that other
    work keeps busy, a long round needs more. A limit that is set already stays, and so
    does the name of a file with flags, which XLA takes in their place.
    """
    limit = "--xla_cpu_collective_call_terminate_timeout_seconds"
    names_file = flags.strip() and not flags.lstrip().startswith("--")
    if limit in flags or names_file:
        return flags
    return f"{flags} {limit}={PATIENCE_S}".strip()


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
    """A one-axis mesh, `client`, for that many clients.

    It has devices of every process. Where the clients do not go round, each process
    has a mesh of its own devices instead, on which it does the same as the others:
    that costs no more time, and nothing has to be sent.

    Args:
      num_clients: how many there are.
      num_devices: devices to use at most, of all processes together.
    """
    processes, devices = jax.process_count(), _devices()
    shards = num_shards(num_clients, num_devices)
    if shards < processes:
        devices = jax.local_devices()
        shards = num_shards(num_clients, min(num_devices, len(devices)))
    # In this order, and of any number: `jax.make_mesh` sorts devices by where they lie,
    # and refuses a number of TPUs that do not make a cuboid, such as five of eight.
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
    """Puts arrays that every process has whole; each brings its devices' part."""
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

    Where processes have parts of an array, all of them have to call this, and each
    gets the whole.
    """

    def copied(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not (
            leaf.is_fully_addressable or leaf.is_fully_replicated
        ):
            return multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(copied, tree)


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
    """How the values of many clients become one, while they are mapped.

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
    """Maps as `map_clients` does, and folds what would be too much to keep.

    Where clients come one after another, the values of all of them are never in memory
    together: it takes what one client and one total take, however many there are.

    Args:
      fn: for one client, `fn(*shared, *own) -> (kept, value)`.
      fold: of the values.
      backend: see `map_clients`, as for the others.
      num_devices: likewise.
      chunk: likewise.
      shared: likewise.

    Returns:
      A function of the other arguments that gives what is kept, `[clients, ...]`, and
      one total of each device's share of the clients, `[shares, ...]`.
    """
    backend = resolve(backend)
    if backend == "loop":
        return _loop(functools.partial(fn, *shared), fold)
    # By default side by side where that is fast: on accelerators.
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


def added_up(totals: PyTree) -> PyTree:
    """Adds up the totals of the shares, in one exchange for each dtype.

    An array by itself would be an exchange by itself, for which all devices wait for
    each other; 250 simulated ones on two cores take 20 ms for that, whatever its size.

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
