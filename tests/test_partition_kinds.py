"""Every kind of partition covers, is disjoint, ends, and has the skew of its name."""

import time

import numpy as np
import pytest

from ecogen_jax.data import partition
from ecogen_jax.data import partition_kinds as kinds

LABELS = np.arange(2000, dtype=np.int32) % 10
DOMAINS = np.repeat([0, 1], [1200, 800])


def made(kind, *given, seed=0, **changes):
    rng = np.random.default_rng(seed)
    return kind(*given, **{"num_clients": 10, "min_size": 1, **changes}, rng=rng)


def dirichlet(labels=LABELS, seed=0, **changes):
    return made(kinds.dirichlet, labels, seed=seed, **{"alpha": 0.3, **changes})


def capped(**changes):
    return dirichlet(**{"capped": True, **changes})


def iid(seed=0, **changes):
    return made(kinds.iid, len(LABELS), seed=seed, **changes)


def quantity(seed=0, **changes):
    return made(kinds.quantity, len(LABELS), seed=seed, **{"alpha": 0.3, **changes})


def shards(labels=LABELS, seed=0, **changes):
    arguments = {"shards_per_client": 2, **changes}
    return made(kinds.shards, labels, seed=seed, **arguments)


def by_domain(seed=0, **changes):
    arguments = {
        "edge_domains": np.array([0, 1, 0, 1, 0]),
        "clients_per_edge": 2,
        "alpha": 0.3,
        "min_size": 1,
    }
    rng = np.random.default_rng(seed)
    return kinds.by_domain(LABELS, DOMAINS, **{**arguments, **changes}, rng=rng)


def sizes(parts):
    return [len(part) for part in parts]


def largest_shares(parts):
    """For each client, the share of its samples that are of its commonest class."""
    counts = partition.label_counts(LABELS, parts, 10)
    return counts.max(axis=1) / counts.sum(axis=1)


@pytest.mark.parametrize("kind", [iid, dirichlet, capped, quantity, shards, by_domain])
def test_every_kind_gives_each_sample_to_one_client_from_the_seed_alone(kind):
    parts = kind(seed=3, min_size=10)
    assert len(parts) == 10
    assert min(sizes(parts)) >= 10
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(2000))
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)
    assert all(map(np.array_equal, parts, kind(seed=3, min_size=10)))
    assert not all(map(np.array_equal, parts, kind(seed=4, min_size=10)))


@pytest.mark.parametrize("kind", [iid, dirichlet, capped, quantity, shards])
def test_every_kind_refuses_what_no_division_can_give(kind):
    for changes in ({"min_size": 201}, {"num_clients": 2001, "min_size": 1}):
        with pytest.raises(ValueError, match=r"2000 samples.*num_clients=.*lower"):
            kind(**changes)
    with pytest.raises(ValueError, match="num_clients is 0: allowed is 1 or more"):
        kind(num_clients=0)


@pytest.mark.parametrize("alpha", [0.01, 0.3, 100.0])
def test_dirichlet_gives_every_sample_to_exactly_one_client(alpha):
    parts = dirichlet(alpha=alpha, min_size=0)
    assert len(parts) == 10
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(2000))


def test_dirichlet_depends_on_the_seed_alone():
    assert all(map(np.array_equal, dirichlet(seed=3), dirichlet(seed=3)))
    assert not all(map(np.array_equal, dirichlet(seed=3), dirichlet(seed=4)))


def test_a_large_alpha_is_nearly_uniform():
    counts = partition.label_counts(LABELS, dirichlet(alpha=1e5), 10)
    assert np.abs(counts - 20).max() <= 2  # 200 images a class over 10 clients


def test_a_small_alpha_is_skewed_and_the_skew_falls_with_alpha():
    shares = [largest_shares(dirichlet(alpha=a)).mean() for a in (0.1, 0.5, 2.0, 100.0)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.5
    assert shares[-1] < 0.15


def test_shares_of_a_class_have_the_mean_and_variance_of_the_dirichlet():
    # Var = (1/m) (1 - 1/m) / (m alpha + 1) for m clients; 400 draws of 10 clients.
    alpha, num_clients = 0.5, 10
    labels = np.zeros(1000, np.int32)
    draws = [dirichlet(labels, seed, alpha=alpha, min_size=0) for seed in range(400)]
    shares = np.array([[len(part) / 1000 for part in parts] for parts in draws])
    variance = 0.1 * 0.9 / (num_clients * alpha + 1)
    np.testing.assert_allclose(shares.mean(axis=0), 0.1, atol=0.03)
    np.testing.assert_allclose(shares.var(), variance, rtol=0.1)


def test_dirichlet_draws_again_until_each_client_has_enough():
    sizes = [len(part) for part in dirichlet(seed=0, min_size=0)]
    enough = min(sizes) + 20
    assert min(len(part) for part in dirichlet(seed=0, min_size=enough)) >= enough


@pytest.mark.parametrize("changes", [{"min_size": 201}, {"alpha": 1e-3}])
def test_dirichlet_gives_up_with_the_fields_and_the_remedy(changes):
    with pytest.raises(ValueError, match=r"alpha=.*num_clients=.*raise alpha"):
        dirichlet(**{"min_size": 100, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 0.0}, r"alpha is 0\.0: allowed is any number > 0"),
        ({"alpha": float("nan")}, "alpha is nan: allowed"),
        ({"num_clients": 0}, "num_clients is 0: allowed is 1 or more"),
    ],
)
def test_dirichlet_refuses_impossible_values(changes, message):
    with pytest.raises(ValueError, match=message):
        dirichlet(**changes)


@pytest.mark.parametrize(("alpha", "min_size"), [(0.05, 1), (0.05, 32), (1.0, 32)])
def test_a_thousand_clients_end_in_seconds_with_an_answer_or_the_reason(
    alpha, min_size
):
    labels = np.arange(60_000, dtype=np.int32) % 10
    changes = {"num_clients": 1000, "alpha": alpha, "min_size": min_size}
    start = time.process_time()
    with pytest.raises(ValueError, match=r"60000 samples.*=1000.*200 draws: raise"):
        dirichlet(labels, **changes)
    assert time.process_time() - start < 20  # about half a second


def test_a_capped_client_gets_no_class_once_it_has_twice_an_equal_share():
    one_class = 200  # of LABELS, and an equal share is as large
    free = [max(sizes(dirichlet(alpha=0.05, seed=seed))) for seed in range(20)]
    held = [max(sizes(capped(alpha=0.05, seed=seed))) for seed in range(20)]
    # Below the cap before its last class, a client ends within one class above it.
    assert max(held) < 2 * 200 + one_class
    assert max(free) > 2 * 200 + one_class
    assert np.mean(held) < np.mean(free)


def test_iid_parts_are_alike_in_size_and_in_labels():
    assert sizes(iid(num_clients=7)) == [286] * 5 + [285] * 2
    counts = partition.label_counts(LABELS, iid(), 10)
    # Multivariate hypergeometric: 20 of each class, with a deviation of about 4.
    assert np.abs(counts - 20).max() < 16
    assert 2 < counts.std() < 6


def test_shards_give_a_client_few_classes():
    # 20 shards of 100 among 10 classes of 200: each shard is of one class.
    counts = partition.label_counts(LABELS, shards(), 10)
    assert set(counts.ravel().tolist()) <= {0, 100, 200}
    assert (counts.sum(axis=1) == 200).all()
    assert 1 < (counts > 0).sum(axis=1).mean() <= 2
    # As McMahan et al.: 60,000 images, 200 shards of 300, 2 for each of 100 clients.
    labels = np.random.default_rng(0).integers(0, 10, 60_000).astype(np.int32)
    parts = shards(labels, num_clients=100)
    assert set(sizes(parts)) == {600}
    held = (partition.label_counts(labels, parts, 10) > 0).sum(axis=1)
    assert held.max() <= 4  # a shard may begin in one class and end in the next
    assert np.median(held) == 2


def test_shards_are_uneven_by_one_sample_a_shard_at_most():
    parts = shards(num_clients=3, shards_per_client=7)  # 21 shards of 95 or 96
    assert all(7 * 95 <= size <= 7 * 96 for size in sizes(parts))


def test_shards_are_dealt_anew_and_cut_anew_by_the_seed():
    counts = [partition.label_counts(LABELS, shards(seed=s), 10) for s in (0, 1)]
    assert not np.array_equal(*counts)
    halves = [{part.tobytes() for part in shards(seed=s)} for s in (0, 1)]
    assert not halves[0] & halves[1]  # the same two classes, but other samples


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shards_per_client": 0}, "shards_per_client is 0: allowed is 1 or more"),
        ({"shards_per_client": 201}, r"in 2010 shards, 0 or.*lower one of the three"),
        ({"min_size": 199, "shards_per_client": 3}, r"in 30 shards.*min_size=199"),
    ],
)
def test_shards_refuse_more_than_there_is(changes, message):
    with pytest.raises(ValueError, match=message):
        shards(**changes)


def test_quantity_skews_sizes_and_not_labels():
    parts = quantity(alpha=0.5, min_size=1)
    assert max(sizes(parts)) > 5 * min(sizes(parts))
    largest = max(parts, key=len)
    share = np.bincount(LABELS[largest], minlength=10) / len(largest)
    np.testing.assert_allclose(share, 0.1, atol=0.04)
    assert max(sizes(quantity(alpha=1e5))) - min(sizes(quantity(alpha=1e5))) < 10


def test_sizes_of_quantity_skew_have_the_variance_of_the_dirichlet():
    alpha, num_clients = 0.5, 10
    draws = [sizes(quantity(seed, alpha=alpha, min_size=0)) for seed in range(400)]
    shares = np.array(draws) / len(LABELS)
    np.testing.assert_allclose(shares.mean(axis=0), 0.1, atol=0.03)
    variance = 0.1 * 0.9 / (num_clients * alpha + 1)
    np.testing.assert_allclose(shares.var(), variance, rtol=0.1)


def test_an_edge_holds_one_domain_and_edges_of_one_domain_share_it_evenly():
    parts = by_domain()
    of_edges = [np.concatenate(parts[first : first + 2]) for first in range(0, 10, 2)]
    held = [set(DOMAINS[some].tolist()) for some in of_edges]
    assert held == [{0}, {1}, {0}, {1}, {0}]
    assert sizes(of_edges) == [400] * 5  # 1200 over three edges, 800 over two


def test_within_an_edge_the_labels_are_skewed_by_alpha_alone():
    skewed, even = by_domain(alpha=0.1), by_domain(alpha=1e5)
    assert largest_shares(skewed).mean() > 1.4 * largest_shares(even).mean()
    for part in even:
        assert abs(len(part) - 200) < 10
    pair = partition.label_counts(LABELS, even[:2], 10)
    assert np.abs(np.subtract(*pair)).max() <= 2


def test_a_domain_that_cannot_be_shared_is_named():
    with pytest.raises(ValueError, match=r"domain 1, edge 0: no division of 800"):
        by_domain(
            edge_domains=np.array([1, 0]), clients_per_edge=10, min_size=90, alpha=1e5
        )
    with pytest.raises(ValueError, match=r"edge_domains lacks \[1\]"):
        by_domain(edge_domains=np.array([0, 0, 0]))


def test_a_client_with_exactly_twice_an_equal_share_gets_no_more():
    # Proportions so skewed that a class has one client: shares are whole classes.
    labels = np.repeat(np.arange(8), 10)
    for seed in range(50):
        parts = made(
            kinds.dirichlet,
            labels,
            seed=seed,
            num_clients=4,
            min_size=0,
            alpha=1e-4,
            capped=True,
        )
        assert max(map(len, parts)) <= 40
