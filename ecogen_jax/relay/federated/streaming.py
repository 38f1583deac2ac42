"""What there is for each device: on the host, and streamed through the rounds.

A federation may have a hundred thousand devices, of which a round samples a hundred. So
what each of them keeps (a control variate, its own net or statistics, the error of its
compression), and what the server remembers of each, is in arrays of the host,
`[devices, ...]`. A round gets the rows of its devices, and the host puts back what they
became. What a JAX device holds grows with the cohort, not with the federation.
"""

from dataclasses import replace

import jax
import numpy as np

from ecogen_jax import mesh
from ecogen_jax.relay.federated.engine import Cohort, Federation, Said
from ecogen_jax.types import Leaf, PyTree

Rows = tuple[PyTree, PyTree, PyTree]
"""`own`, `errors` and `known` of a `Federation`."""


def everybody(first: Federation, num_devices: int) -> Federation:
    """The state before the first round; its rows take no memory, see `kept_on_host`.

    Args:
      first: from `Engine.init`, with what there is for one device.
      num_devices: in all.
    """

    def rows(leaf: Leaf) -> np.ndarray:
        one = np.asarray(leaf)
        return np.broadcast_to(one, (num_devices, *one.shape))

    return with_rows(first, jax.tree.map(rows, rows_of(first)))


def core(state: Federation) -> Federation:
    """What stays on the JAX devices from round to round."""
    return with_rows(state, ((), (), ()))


def rows_of(state: Federation) -> Rows:
    """What there is for each device."""
    return state.own, state.errors, state.known


def with_rows(state: Federation, rows: Rows) -> Federation:
    """The state with other `rows_of`."""
    own, errors, known = rows
    return replace(state, own=own, errors=errors, known=known)


def kept_on_host(state: Federation) -> Rows:
    """What there is for each device, in arrays that `put_back` may write to."""
    return jax.tree.map(
        lambda leaf: np.require(leaf, requirements=("C", "W")), rows_of(state)
    )


def handed_out(state: Federation, cohort: Cohort) -> Cohort:
    """The cohort with what there is for its devices."""
    device = cohort.members.device
    rows = jax.tree.map(lambda leaf: leaf[device], rows_of(state))
    return replace(cohort, kept=rows)


def put_back(
    state: Federation, after: Federation, device: np.ndarray, said: Said
) -> Federation:
    """The state after a round; the arrays of the state before are written to.

    Args:
      state: before the round.
      after: what the round gave.
      device: who took part, `[active]`, each once.
      said: in the round.
    """
    kept = rows_of(state)
    if jax.tree.leaves(kept):
        every, some = map(jax.tree.leaves, (kept, mesh.to_host(said.kept)))
        for rows, new in zip(every, some, strict=True):
            rows[device] = new
    return with_rows(after, kept)
