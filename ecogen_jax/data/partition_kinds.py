"""How samples are split over clients: one function per kind of heterogeneity.

Every kind is deterministic given a `numpy.random.Generator` and assigns each sample to
exactly one client. After a bounded number of draws it raises an error that says what to
change.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int

_MAX_DRAWS = 200


def iid(
    num_samples: int, *, num_clients: int, min_size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Splits samples at random, in sizes that differ by one at most.

    Args:
        num_samples: how many samples there are.
        num_clients: how many clients share them.
        min_size: fewest samples that a client may get.
        rng: source of randomness.

    Returns:
        For each client the sorted int64 positions of its samples.

    Raises:
        ValueError: there are fewer than `num_clients * min_size` samples.
    """
    _check_clients(num_clients)
    if num_samples // num_clients < min_size:
        raise ValueError(
            f"{num_samples} samples are too few for num_clients={num_clients} with "
            f"min_size={min_size} each: lower one of the two"
        )
    order = rng.permutation(num_samples)
    return [np.sort(part) for part in np.array_split(order, num_clients)]


def dirichlet(
    labels: Int[np.ndarray, " n"],
    *,
    num_clients: int,
    alpha: float,
    min_size: int,
    rng: np.random.Generator,
    capped: bool = False,
) -> list[np.ndarray]:
    """Splits samples with label skew: class by class, in Dirichlet proportions.

    For each class k, p_k ~ Dir(alpha, ..., alpha) over the clients, and client i gets
    the share p_k[i] of the class (Yurochkin et al. 2019, "Bayesian Nonparametric
    Federated Learning of Neural Networks"; Hsu et al. 2019, "Measuring the Effects of
    Non-Identical Data Distribution", draw over classes for each client instead).
    The whole split is drawn again until every client has `min_size` samples.

    If capped, a client with twice an equal share gets no further class: classes come in
    random order, and the proportions of such clients are set to zero. The published
    code of FedGen (Zhu et al., ICML 2021) splits MNIST in this way: 1,500 images of
    each class over 20 users, up to 1,500 per user before the last class that it gets.

    Args:
        labels: class of each sample [n].
        num_clients: how many clients share the samples.
        alpha: concentration, > 0; small is non-IID, large is uniform.
        min_size: fewest samples that a client may get.
        rng: source of randomness.
        capped: whether there is a cap.

    Returns:
        For each client the sorted int64 positions into `labels`; each position is in
        exactly one of them.

    Raises:
        ValueError: alpha or num_clients is not positive, or no draw gave every client
            `min_size` samples.
    """

    def draw() -> np.ndarray:
        owner = np.empty(len(labels), np.int64)
        held = np.zeros(num_clients, np.int64)
        classes = np.unique(labels)
        for label in rng.permutation(classes) if capped else classes:
            takes = held * num_clients < 2 * len(labels) if capped else None
            members = rng.permutation(np.flatnonzero(labels == label))
            owner[members] = _owners(len(members), num_clients, alpha, rng, takes)
            held += np.bincount(owner[members], minlength=num_clients)
        return owner

    return _enough_for_all(draw, len(labels), num_clients, alpha, min_size)


def quantity(
    num_samples: int,
    *,
    num_clients: int,
    alpha: float,
    min_size: int,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Splits samples with quantity skew: sizes by Dirichlet, labels at random.

    p ~ Dir(alpha, ..., alpha) over the clients, and client i gets a random share p[i]
    of all samples (Li et al. 2022, "Federated Learning on Non-IID Data Silos: An
    Experimental Study", quantity skew). Drawn again until every client has `min_size`.

    Args:
        num_samples: how many samples there are.
        num_clients: how many clients share them.
        alpha: concentration, > 0; small gives unequal sizes, large equal ones.
        min_size: fewest samples that a client may get.
        rng: source of randomness.

    Returns:
        For each client the sorted int64 positions of its samples.

    Raises:
        ValueError: alpha or num_clients is not positive, or no draw gave every client
            `min_size` samples.
    """

    def draw() -> np.ndarray:
        owner = np.empty(num_samples, np.int64)
        order = rng.permutation(num_samples)
        owner[order] = _owners(num_samples, num_clients, alpha, rng)
        return owner

    return _enough_for_all(draw, num_samples, num_clients, alpha, min_size)


def shards(
    labels: Int[np.ndarray, " n"],
    *,
    num_clients: int,
    shards_per_client: int,
    min_size: int,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Splits samples into shards of similar labels, so that a client has few classes.

    The samples are sorted by label and cut into `num_clients * shards_per_client`
    shards, in sizes that differ by one at most; each client is dealt the same number
    of them (McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks
    from Decentralized Data": 2 of 200 shards of MNIST for each of 100 clients).

    Args:
        labels: class of each sample [n].
        num_clients: how many clients share the samples.
        shards_per_client: how many shards each of them gets.
        min_size: fewest samples that a client may get.
        rng: source of randomness: who gets which shard, and which samples of a class.

    Returns:
        For each client the sorted int64 positions into `labels`.

    Raises:
        ValueError: a number is not positive, or there are too few samples.
    """
    _check_clients(num_clients)
    if shards_per_client < 1:
        raise ValueError(
            f"shards_per_client is {shards_per_client}: allowed is 1 or more"
        )
    num_shards = num_clients * shards_per_client
    smallest = len(labels) // num_shards
    if not smallest or smallest * shards_per_client < min_size:
        raise ValueError(
            f"{len(labels)} samples in {num_shards} shards, {smallest} or one more in "
            f"each, are too few to give each of num_clients={num_clients} as many as "
            f"min_size={min_size} in shards_per_client={shards_per_client}: lower one "
            "of the three"
        )
    order = rng.permutation(len(labels))
    by_label = order[np.argsort(labels[order], kind="stable")]
    pieces = np.array_split(by_label, num_shards)
    hands = rng.permutation(num_shards).reshape(num_clients, shards_per_client)
    return [np.sort(np.concatenate([pieces[i] for i in hand])) for hand in hands]


def by_domain(
    labels: Int[np.ndarray, " n"],
    domains: Int[np.ndarray, " n"],
    *,
    edge_domains: Int[np.ndarray, " edges"],
    clients_per_edge: int,
    alpha: float,
    min_size: int,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Splits samples with domain skew: an edge's clients hold a single domain.

    A domain's samples are dealt at random and evenly to its edges (feature skew, Li et
    al. 2022, "Federated Learning on Non-IID Data Silos"), and within an edge to the
    clients by `dirichlet`.

    Args:
        labels: class of each sample [n].
        domains: domain of each sample [n].
        edge_domains: domain of each edge; each domain has to have one.
        clients_per_edge: how many clients share the samples of an edge.
        alpha: concentration within an edge, > 0.
        min_size: fewest samples that a client may get.
        rng: source of randomness.

    Returns:
        For each client, edge after edge, the sorted int64 positions into `labels`.

    Raises:
        ValueError: a domain has no edge, or `dirichlet` cannot serve one; the message
            names it.
    """
    without = np.setdiff1d(domains, edge_domains)
    if len(without):
        raise ValueError(f"edge_domains lacks {without.tolist()}: give each an edge")
    parts: dict[int, list[np.ndarray]] = {}
    for domain in np.unique(edge_domains):
        edges = np.flatnonzero(edge_domains == domain)
        samples = rng.permutation(np.flatnonzero(domains == domain))
        for edge, held in zip(edges, np.array_split(samples, len(edges)), strict=True):
            try:
                inside = dirichlet(
                    labels[held],
                    num_clients=clients_per_edge,
                    alpha=alpha,
                    min_size=min_size,
                    rng=rng,
                )
            except ValueError as error:
                raise ValueError(f"domain {domain}, edge {edge}: {error}") from error
            parts[int(edge)] = [np.sort(held[part]) for part in inside]
    return [part for edge in sorted(parts) for part in parts[edge]]


def _check_clients(num_clients: int) -> None:
    if num_clients < 1:
        raise ValueError(f"num_clients is {num_clients}: allowed is 1 or more")


def _owners(
    num_samples: int,
    num_clients: int,
    alpha: float,
    rng: np.random.Generator,
    takes: np.ndarray | None = None,
) -> np.ndarray:
    """Client of each sample, ascending: one draw of Dirichlet proportions, rounded.

    `takes` says which clients get any; None for all of them.
    """
    shares = rng.dirichlet(np.full(num_clients, alpha))
    if takes is not None:
        # All remaining proportions may be zero; then the takers get equal shares.
        shares = np.where(takes, np.maximum(shares, 1e-12), 0.0)
        shares /= shares.sum()
    bounds = np.round(np.cumsum(shares)[:-1] * num_samples).astype(np.int64)
    sizes = np.diff(bounds, prepend=0, append=num_samples)
    return np.repeat(np.arange(num_clients), sizes)


def _enough_for_all(
    draw: Callable[[], np.ndarray],
    num_samples: int,
    num_clients: int,
    alpha: float,
    min_size: int,
) -> list[np.ndarray]:
    """The first draw of owners that gives each client `min_size` samples, by client."""
    if not alpha > 0.0:
        raise ValueError(f"alpha is {alpha}: allowed is any number > 0, such as 0.3")
    _check_clients(num_clients)
    if num_clients * min_size <= num_samples:
        for _ in range(_MAX_DRAWS):
            owner = draw()
            sizes = np.bincount(owner, minlength=num_clients)
            if sizes.min() >= min_size:
                return np.split(np.argsort(owner, kind="stable"), np.cumsum(sizes)[:-1])
    raise ValueError(
        f"no division of {num_samples} samples with alpha={alpha}, "
        f"num_clients={num_clients} gave each client min_size={min_size} samples in "
        f"{_MAX_DRAWS} draws: raise alpha, or lower num_clients or min_size"
    )
