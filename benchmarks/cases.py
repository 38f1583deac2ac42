"""The benchmark cases: groups of workers that take turns on the same cores."""

from typing import NamedTuple

from benchmarks.ours.products import KINDS
from benchmarks.workers import Worker


class Group(NamedTuple):
    """Workers that take turns.

    Attributes:
        clock: `cpu_s` to be robust to other load on the machine, for one process on one
            core each; `wall_s` if waiting counts too: for other processes, for a second
            core, for the disk.
        cores: how many they share.
        workers: the workers.
        most: largest number of repeats, if one takes minutes.
        anew: how often all workers are started and do their repeats. The memory layout
            of a process changes the time of a round of small nets by some percent, for
            the life of the process.
        gpu: whether it is about a GPU, and is not run without one.
    """

    clock: str
    cores: int
    workers: tuple[Worker, ...]
    most: int = 99
    anew: int = 1
    gpu: bool = False


def _ours(name: str, *arguments: str) -> Worker:
    # Its process ends without removing its run folder, so the suite does.
    here = (("TMPDIR", "{scratch}"),)
    return Worker(name, ("benchmarks.ours.rounds", *arguments), env=here)


def _peer(name: str, peer: str, *arguments: str) -> Worker:
    return Worker(name, (f"benchmarks.peers.{peer}_rounds", *arguments), peer)


def _torch(name: str, module: str, *arguments: str) -> Worker:
    return Worker(name, (f"benchmarks.plain.{module}_torch", *arguments), "torch")


def _one_core(task: str) -> Group:
    """Federated rounds by process, each with one thread."""
    return Group(
        "cpu_s",
        1,
        (
            _ours("ours", task),
            _peer("fedjax", "fedjax", task),
            _peer("pfl", "pfl", task),
        ),
    )


def _two_cores(task: str, *, flower: bool = True) -> Group:
    """Federated rounds by two processes, or by two devices in one."""
    ours = _ours("ours", task, "--devices", "2")
    workers = [ours, _peer("pfl", "pfl", task, "2")]
    if flower:
        workers.append(_peer("flower", "flower", task))
    return Group("wall_s", 2, tuple(workers), most=5)


def _backends(what: str) -> Group:
    """Rounds on two cores by the default mapping, and by all others."""
    two = ("--devices", "2")
    ways = {
        "ours": two,
        "scan": ("--backend", "scan"),
        "vmap": ("--backend", "vmap"),
        "chunks": ("--backend", "vmap", "--chunk", "5"),
        "shards": (*two, "--backend", "shard_map", "--chunk", "1000"),
        "pmap": (*two, "--backend", "pmap"),
    }
    workers = tuple(_ours(way, what, *arguments) for way, arguments in ways.items())
    return Group("wall_s", 2, workers, most=5)


def _tax(task: str) -> Group:
    bare = Worker("bare", ("benchmarks.plain.bare", task))
    workers = (_ours("ours", task, "--told"), bare)
    return Group("wall_s", 1, workers, most=4, anew=5)


def _hop(name: str) -> Group:
    workers = (
        Worker("ours", ("benchmarks.ours.hop", name)),
        _torch("default", "hop", name, "default"),
        _torch("channels_last", "hop", name, "channels_last"),
    )
    return Group("cpu_s", 1, workers)


def _share_of_peak(name: str) -> Group:
    """A hop and the kinds of its layers, against the matrix product."""
    module = "benchmarks.ours.products"
    workers = [
        Worker("peak", (module, "peak")),
        Worker("ours", ("benchmarks.ours.hop", name, "--flops")),
    ]
    workers += [Worker(kind, (module, name, kind)) for kind in KINDS[name]]
    return Group("cpu_s", 1, tuple(workers))


def _start(name: str) -> Group:
    """The first step with the cache on the disk, and without."""
    command = ("benchmarks.ours.start", "step", name)
    kept = (("JAX_COMPILATION_CACHE_DIR", "{scratch}"),)
    cached = Worker("ours", command, starts=1, env=kept)
    plain = Worker("no cache", command, starts=1, env=_NO_CACHE)
    return Group("wall_s", 2, (cached, plain), most=5)


_NO_CACHE = (("JAX_ENABLE_COMPILATION_CACHE", "false"),)


def _seeds() -> Group:
    module = "benchmarks.ours.start"
    workers = (
        Worker("ours", (module, "seeds", "0", "4"), starts=1, env=_NO_CACHE),
        Worker("one by one", (module, "seeds", "0", "0"), starts=5, env=_NO_CACHE),
    )
    return Group("cpu_s", 1, workers, most=3)


_GPU_CORES = 4
"""One starts the GPU's work; compilers and PyTorch's gradients have threads besides."""


def _on_gpu(group: Group) -> Group:
    """The same by wall clock, on a GPU whose memory the workers share."""
    shared = ("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    workers = tuple(w._replace(env=(*w.env, shared)) for w in group.workers)
    return group._replace(clock="wall_s", cores=_GPU_CORES, workers=workers, gpu=True)


def _hop_on_gpu(name: str) -> Group:
    """A hop, the same with a dispatch for each step, and PyTorch with its compiler."""
    module = "benchmarks.ours.hop"
    workers = [Worker("ours", (module, name))]
    workers += [Worker("dispatch", (module, name, "--dispatch"))]
    workers += [
        _torch(f"{layout} {mode}", "hop", name, layout, "cuda", mode)
        for layout in ("default", "channels_last")
        for mode in ("default", "reduce-overhead")
    ]
    return _on_gpu(Group("wall_s", 1, tuple(workers)))


GROUPS: dict[str, Group] = {
    "S1": Group(
        "cpu_s",
        1,
        (
            _ours("ours", "fedgen", "--told"),
            Worker("jax loop", ("benchmarks.plain.fedgen_jax", "loop")),
            Worker("jax scan", ("benchmarks.plain.fedgen_jax", "scan")),
            Worker("jax devices", ("benchmarks.plain.fedgen_jax", "devices")),
            _torch("torch", "fedgen"),
        ),
    ),
    "S2.small": _hop("small"),
    "S2.ngf64": _hop("ngf64"),
    "S3a": _one_core("S3a"),
    "S3a.two": _two_cores("S3a"),
    "S3b": _one_core("S3b"),
    "S3b.two": _two_cores("S3b"),
    "S3c": _one_core("S3c"),
    "S3c.two": _two_cores("S3c"),
    "S3d": _one_core("S3d"),
    "S3d.two": _two_cores("S3d", flower=False),
    "S3e.logistic": _tax("S3a"),
    "S3e.mlp": _tax("S3b"),
    "S3e.many": _tax("S3c"),
    "S3f.tiers": Group(
        "cpu_s",
        1,
        (_ours("ours", "S3b", "--edges", "5"), _ours("flat", "S3b")),
        most=4,
        anew=5,
    ),
    "S3f.devices": Group(
        "wall_s",
        2,
        (
            _ours("ours", "many", "--devices", "250"),
            _ours("two", "many", "--devices", "2"),
        ),
        most=4,
        anew=5,
    ),
    "S3g.logistic": _backends("S3a"),
    "S3g.mlp": _backends("S3b"),
    "S3g.cnn": _backends("S3d"),
    "S3g.fedgen": _backends("fedgen"),
    "S2.gpu.small": _hop_on_gpu("small"),
    "S2.gpu.ngf64": _hop_on_gpu("ngf64"),
    "S4": _seeds(),
    "S4.gpu": _on_gpu(_seeds()),
    "S5.hop": _start("small"),
    "S5.fedgen": _start("fedgen"),
    "S6.small": _share_of_peak("small"),
    "S6.ngf64": _share_of_peak("ngf64"),
    "S6.gpu": _on_gpu(_share_of_peak("ngf64")),
}
"""By name; a row of `bars.csv` names its group and the workers that it compares."""
