"""Sums over the devices of a round, so that single messages need not be kept.

Each JAX device adds up its share of the cohort; then one all-reduce adds up the shares.
There is only one such exchange, because simulated devices wait for each other longer
than a round of small nets takes. What only the host reads, the last message of each
share, stays where it is.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import struct

from ecogen_jax import mesh
from ecogen_jax.relay.federated import pools, schedule
from ecogen_jax.relay.federated.base import Arrived
from ecogen_jax.types import Leaf, PyTree


@struct.dataclass
class Heard:
    """What the round reports of a device, besides its part of the server's update.

    Attributes:
      verdict: int32, `schedule.OK` or why its message was refused.
      message: payload and facts, as they were sent.
      metrics: `[steps]` each.
    """

    verdict: Leaf
    message: tuple[PyTree, PyTree]
    metrics: PyTree


@struct.dataclass
class Sums:
    """The same of many devices.

    Attributes:
      last: the message of the last of them; of the last of each share, `[shares, ...]`,
        once they are all added.
      metrics: sums of the means over steps, over the devices that count.
      counted: float32, how many count.
      pools: `pools.Pools`; () where the server keeps every message.
    """

    last: tuple[PyTree, PyTree]
    metrics: PyTree
    counted: Leaf
    pools: PyTree


def nobody(heard: Heard, one: Arrived, count: int) -> Sums:
    """Sums over no device.

    Args:
      heard: of a device, or its shapes.
      one: the message of a device, or its shapes.
      count: of pools.
    """
    return Sums(
        last=heard.message,
        metrics={name: jnp.zeros(()) for name in heard.metrics},
        counted=jnp.zeros(()),
        pools=pools.empty(one, count) if count else (),
    )


def added(sums: Sums, value: tuple[Heard, PyTree]) -> Sums:
    """The sums with one more device.

    Metrics of a device that diverged and was refused are left out, as after any other
    fault.

    Args:
      sums: over those before it in the cohort.
      value: its `Heard`, and its message, if there are pools.
    """
    heard, one = value
    finite = jnp.stack([jnp.isfinite(each).all() for each in heard.metrics.values()])
    counts = (heard.verdict == schedule.OK) | finite.all()
    return Sums(
        last=heard.message,
        metrics=jax.tree.map(
            lambda total, each: total + jnp.where(counts, jnp.mean(each), 0.0),
            sums.metrics,
            heard.metrics,
        ),
        counted=sums.counted + counts.astype(jnp.float32),
        pools=pools.added(sums.pools, one) if sums.pools else (),
    )


def of_all_shares(sums: Sums) -> Sums:
    """The sums over all devices, from those of the shares, `[shares, ...]`.

    Returns:
      `last` is still `[shares, ...]`.
    """
    parts = (sums.metrics, sums.counted, sums.pools)
    metrics, counted, whole = mesh.added_up(parts)
    return replace(sums, metrics=metrics, counted=counted, pools=whole)
