"""Client-level differential privacy of averaged updates, as in DP-FedAvg.

McMahan et al., "Learning differentially private recurrent language models", ICLR 2018.
The guarantee hides whether a client took part at all. It has three conditions: every
update is clipped to a norm `C`; the server divides their unweighted sum by a fixed
number `m`, so that one client changes the mean by at most `C / m`; and the server adds
noise of standard deviation `z C / m` in every round, even if no client took part.
Anything that a client sends besides the update (counts, statistics) is not hidden.
"""

import dp_accounting
import jax
import jax.numpy as jnp
from dp_accounting import pld, rdp

from ecogen_jax import keys
from ecogen_jax.types import Key, PyTree


def clip(update: PyTree, max_norm: float) -> PyTree:
    """Scales an update so that its norm is at most `max_norm`, `x min(1, C / |x|)`.

    Args:
      update: of one client, float32 leaves.
      max_norm: `C > 0`, of the L2 norm over all leaves together.

    Returns:
      The update; exactly the same if its norm is small enough.
    """
    squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(update)]
    norm = jnp.sqrt(sum(squares, jnp.zeros(())))
    factor = max_norm / jnp.maximum(norm, max_norm)
    return jax.tree.map(lambda leaf: leaf * factor, update)


def noise(
    key: Key,
    mean_update: PyTree,
    *,
    max_norm: float,
    noise_multiplier: float,
    clients: int,
) -> PyTree:
    """Adds Gaussian noise, `N(0, (z C / m)^2)`, to each value of a mean.

    Args:
      key: of the round.
      mean_update: the sum of the clipped updates over `clients`, float32 leaves.
      max_norm: `C`, their clipping norm.
      noise_multiplier: `z`.
      clients: `m`, how many clients are expected to take part. The sum is divided by
        this number even if fewer took part: a mean over the actual participants would
        change by more than `C / m` if one of them leaves.

    Returns:
      The noisy mean.
    """
    deviation = noise_multiplier * max_norm / clients
    leaves, structure = jax.tree.flatten(mean_update)
    noisy = [
        leaf
        + deviation * jax.random.normal(keys.stream(key, "noise", index), leaf.shape)
        for index, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, noisy)


def epsilon(
    *, noise_multiplier: float, sampling_rate: float, rounds: int, delta: float
) -> float:
    """Privacy loss of a run: it is (epsilon, delta)-differentially private.

    By the privacy loss distribution of the subsampled Gaussian mechanism (Koskela et
    al., "Computing tight differential privacy guarantees using FFT", AISTATS 2020),
    rounded up, for two runs that differ in the presence of one client. It assumes
    Poisson sampling: every client takes part in a round independently. It is no
    guarantee for samples of a fixed size without replacement: see
    `epsilon_of_fixed_size`.

    Args:
      noise_multiplier: `z`; 0 is no privacy.
      sampling_rate: probability that a client takes part in a round, in (0, 1].
      rounds: how many.
      delta: in (0, 1), well below one over the number of clients.

    Returns:
      Epsilon; infinity without noise.

    Raises:
      ValueError: an argument is out of range.
    """
    plain = _without_accountant(noise_multiplier, sampling_rate, rounds, delta)
    if plain is not None:
        return plain
    one = dp_accounting.PoissonSampledDpEvent(
        sampling_rate, dp_accounting.GaussianDpEvent(noise_multiplier)
    )
    # Losses grow as 1 / z^2. So does the grid's step, or the grid would take gigabytes.
    step = 1e-4 / min(1.0, noise_multiplier) ** 2
    accountant = pld.PLDAccountant(value_discretization_interval=step)
    accountant.compose(dp_accounting.SelfComposedDpEvent(one, rounds))
    return float(accountant.get_epsilon(delta))


def epsilon_of_fixed_size(
    *, noise_multiplier: float, active: int, clients: int, rounds: int, delta: float
) -> float:
    """A bound on the privacy loss if a fixed number of clients is sampled each round.

    For two runs in which one client is replaced by another, which changes the sum by up
    to `2 C`. By Renyi differential privacy of samples without
    replacement (Wang, Balle and Kasiviswanathan, "Subsampled Renyi differential privacy
    and analytical moments accountant", AISTATS 2019), and at most that of rounds in
    which all clients take part: an upper bound, not tight.

    Args:
      noise_multiplier: `z`; 0 is no privacy.
      active: clients drawn in a round, without replacement.
      clients: how many there are.
      rounds: how many.
      delta: in (0, 1), well below one over the number of clients.

    Returns:
      Epsilon; infinity without noise.

    Raises:
      ValueError: an argument is out of range.
    """
    plain = _without_accountant(noise_multiplier, active / clients, rounds, delta)
    if plain is not None:
        return plain

    def bound(active: int) -> float:
        one = dp_accounting.SampledWithoutReplacementDpEvent(
            clients, active, dp_accounting.GaussianDpEvent(noise_multiplier / 2)
        )
        accountant = rdp.RdpAccountant(
            neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE
        )
        accountant.compose(dp_accounting.SelfComposedDpEvent(one, rounds))
        return float(accountant.get_epsilon(delta))

    # A sampled round is a mixture of rounds with and without the client, so it tells no
    # more than one in which all take part, whose bound is tighter for large samples.
    return min(bound(active), bound(clients))


def _without_accountant(
    noise_multiplier: float, sampling_rate: float, rounds: int, delta: float
) -> float | None:
    """Epsilon in trivial cases: 0 for no round, infinity without noise; else None."""
    _check(noise_multiplier, sampling_rate, rounds, delta)
    if rounds == 0:
        return 0.0
    return float("inf") if noise_multiplier == 0.0 else None


def _check(
    noise_multiplier: float, sampling_rate: float, rounds: int, delta: float
) -> None:
    if not noise_multiplier >= 0.0:
        raise ValueError(
            f"noise_multiplier is {noise_multiplier}: allowed is 0 (no privacy) or "
            "more, such as 1.0"
        )
    if not 0.0 < sampling_rate <= 1.0:
        raise ValueError(
            f"sampling_rate is {sampling_rate}: allowed is a share from above 0 to 1, "
            "such as active devices over all devices"
        )
    if rounds < 0:
        raise ValueError(f"rounds is {rounds}: allowed is 0 or more")
    if not 0.0 < delta < 1.0:
        raise ValueError(
            f"delta is {delta}: allowed is a probability between 0 and 1, well below "
            "one over the number of clients, such as 1e-5"
        )
