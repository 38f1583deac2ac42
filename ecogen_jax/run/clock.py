"""Wall seconds of a run, split by what the host was doing."""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax

_COMPILING = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)

_compiled_s = 0.0


def _listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
    global _compiled_s
    if event in _COMPILING:
        _compiled_s += duration_secs


jax.monitoring.register_event_duration_secs_listener(_listen)


@dataclasses.dataclass
class Clock:
    """Seconds that the host spent; `Clock(**state)` goes on where a run stopped.

    JAX reports its time for tracing and compiling; the part within a timed block goes
    to `compile` and the rest to the block's name. JAX returns before a result is ready,
    so a timed block has to wait for its result.

    Attributes:
        compile: seconds of tracing and compiling.
        train: other seconds in training rounds.
        evaluate: other seconds in evaluation.
    """

    compile: float = 0.0
    train: float = 0.0
    evaluate: float = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Adds the seconds of the `with` block, also when it raises.

        Args:
            name: `train` or `evaluate`.

        Yields:
            Nothing.

        Raises:
            ValueError: `name` is neither.
        """
        if name not in ("train", "evaluate"):
            raise ValueError(f"clock name {name!r} is unknown; use train or evaluate")
        start, compiled = time.perf_counter(), _compiled_s
        try:
            yield
        finally:
            compiling = _compiled_s - compiled
            seconds = time.perf_counter() - start - compiling
            setattr(self, name, getattr(self, name) + max(seconds, 0.0))
            self.compile += compiling

    def state(self) -> dict[str, float]:
        """Returns the seconds by name, for a checkpoint and for `summary.json`."""
        return dataclasses.asdict(self)
