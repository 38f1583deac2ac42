"""Which part of a net is sent, and which stays on its device."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from ecogen_jax.nets.functional import Variables
from ecogen_jax.nets.latent import HEAD
from ecogen_jax.relay.federated.base import Task
from ecogen_jax.types import Leaf, PyTree


@struct.dataclass
class Kept:
    """What a device keeps of its net.

    Attributes:
      params: of the layers that are not shared, or {}.
      stats: running statistics of BatchNorm, or {}.
    """

    params: Leaf
    stats: Leaf


class Sharing(NamedTuple):
    """Splits nets into what is shared and what is kept.

    Attributes:
      head_only: whether only the last layer is shared.
      keeps_statistics: see `Task`.
      sends_statistics: see `Task`.
    """

    head_only: bool
    keeps_statistics: bool
    sends_statistics: bool = True

    def shared(self, variables: Variables) -> Variables:
        """The part that the server sends, and averages the changes of."""
        stats = {} if self.head_only or self.keeps_statistics else variables.stats
        if self.head_only:
            return Variables({HEAD: variables.params[HEAD]}, stats)
        return Variables(variables.params, stats)

    def kept(self, variables: Variables) -> Kept:
        """The part that stays on the device."""
        params = {}
        if self.head_only:
            params = {k: v for k, v in variables.params.items() if k != HEAD}
        stays = self.head_only or self.keeps_statistics
        return Kept(params, variables.stats if stays else {})

    def joined(self, shared: Variables, kept: Kept) -> Variables:
        """The whole net of a device."""
        return Variables({**kept.params, **shared.params}, kept.stats or shared.stats)

    def facts(self, variables: Variables) -> PyTree:
        """Statistics that are sent up only for the cloud's net, or {}."""
        if self.keeps_statistics and self.sends_statistics and not self.head_only:
            return variables.stats
        return {}

    def gathered(
        self, variables: Variables, change: Variables, statistics: PyTree
    ) -> Variables:
        """The server's net after a round.

        Args:
          variables: before it.
          change: the aggregated change of the shared part.
          statistics: the mean of the devices' `facts`.
        """
        moved = jax.tree.map(jnp.add, self.shared(variables), change)
        return Variables(
            {**variables.params, **moved.params},
            possible(moved.stats) or statistics or variables.stats,
        )


def sharing(task: Task) -> Sharing:
    """What a task shares."""
    return Sharing(task.share == "head", task.keeps_statistics, task.sends_statistics)


def difference(after: PyTree, before: PyTree) -> PyTree:
    """`after - before`, leaf by leaf."""
    return jax.tree.map(jnp.subtract, after, before)


def possible(stats: PyTree) -> PyTree:
    """Statistics with variances clipped at 0: noise and compression may go below."""

    def leaf(path: tuple[Any, ...], value: jax.Array) -> jax.Array:
        return jnp.maximum(value, 0.0) if path[-1].key == "var" else value

    return jax.tree_util.tree_map_with_path(leaf, stats)
