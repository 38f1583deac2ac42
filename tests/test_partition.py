"""Public and private halves: disjoint, in the sizes wanted, from the seed alone."""

import numpy as np
import pytest

from ecogen_jax.data import partition, partition_kinds

LABELS = np.arange(2000, dtype=np.int32) % 10


def split(labels=LABELS, seed=0, **changes):
    arguments = {
        "public_fraction": 0.5,
        "validation_fraction": 0.1,
        "public_missing_classes": (),
    }
    rng = np.random.default_rng(seed)
    return partition.split(labels, **{**arguments, **changes}, rng=rng)


def test_split_covers_every_image_once_in_the_wanted_sizes():
    parts = split(public_fraction=0.25, validation_fraction=0.2)
    assert [len(part) for part in parts] == [400, 100, 1200, 300]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(2000))
    assert all(part.dtype == np.int64 for part in parts)


def test_split_depends_on_the_seed_alone():
    assert all(map(np.array_equal, split(seed=3), split(seed=3)))
    assert not np.array_equal(split(seed=3).public_train, split(seed=4).public_train)


def test_split_draws_at_random_over_the_order_of_the_images():
    first_half = split().public_train < 1000
    assert 0.4 < first_half.mean() < 0.6


def test_missing_classes_leave_the_public_half_and_nothing_else_changes():
    whole, lacking = split(), split(public_missing_classes=(3, 7))
    for half in ("public_train", "public_validation"):
        before, after = getattr(whole, half), getattr(lacking, half)
        assert np.array_equal(after, before[~np.isin(LABELS[before], (3, 7))])
        assert len(after) < len(before)
    assert np.array_equal(lacking.private_train, whole.private_train)
    assert np.array_equal(lacking.private_validation, whole.private_validation)


@pytest.mark.parametrize(
    ("fraction", "sizes"), [(0.0, [0, 0, 1800, 200]), (1.0, [1800, 200, 0, 0])]
)
def test_everything_may_be_public_or_private(fraction, sizes):
    parts = split(public_fraction=fraction)
    assert [len(part) for part in parts] == sizes
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(2000))


def test_a_twelfth_of_sixty_thousand_leaves_five_thousand_to_choose_on():
    labels = np.arange(60_000) % 10
    parts = split(labels, public_fraction=1.0, validation_fraction=1 / 12)
    assert [len(part) for part in parts] == [55_000, 5_000, 0, 0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("public_fraction", value) for value in (-0.5, 1.1, float("nan"))),
        *(("validation_fraction", value) for value in (0.0, 1.0, -0.5, float("nan"))),
    ],
)
def test_split_refuses_fractions_that_make_no_sense(field, value):
    with pytest.raises(ValueError, match=rf"{field} is {value}: allowed is"):
        split(**{field: value})


@pytest.mark.parametrize("missing", [(10,), tuple(range(10))])
def test_split_refuses_missing_classes_that_make_no_sense(missing):
    with pytest.raises(ValueError, match=r"public_missing_classes is \(.*some, not al"):
        split(public_missing_classes=missing)


def test_label_counts_in_closed_form():
    labels = np.array([0, 2, 2, 1, 0], np.int32)
    counts = partition.label_counts(labels, [np.array([1, 2, 3]), np.array([0])], 4)
    assert counts.dtype == np.int64
    assert counts.tolist() == [[0, 1, 2, 0], [1, 0, 0, 0]]


def test_clients_get_their_samples_with_zeros_behind_those_of_the_smaller():
    images = np.arange(1, 13, dtype=np.uint8).reshape(3, 2, 2, 1)
    labels = np.array([5, 6, 7])
    held = partition.hold(images, labels, [np.array([2, 0]), np.array([1])])
    padded_images, padded_labels, sizes = held.padded(np.array([1, 0]))
    assert padded_images.shape == (2, 2, 2, 2, 1)
    assert padded_images.dtype == np.uint8
    assert np.array_equal(padded_images[0, 0], images[1])
    assert np.array_equal(padded_images[1], images[[2, 0]])
    assert not padded_images[0, 1:].any()
    assert padded_labels.tolist() == [[6, 0], [7, 5]]
    assert padded_labels.dtype == sizes.dtype == np.int32
    assert sizes.tolist() == [1, 2]


@pytest.mark.parametrize("kind", ["dirichlet", "dirichlet_capped", "quantity"])
@pytest.mark.parametrize("clients", [10, 100])
def test_what_clients_hold_takes_no_more_memory_than_their_samples(kind, clients):
    rng, wanted = np.random.default_rng(0), {"num_clients": clients, "min_size": 0}
    if kind == "quantity":
        parts = partition_kinds.quantity(len(LABELS), alpha=0.3, rng=rng, **wanted)
    else:
        capped = kind == "dirichlet_capped"
        parts = partition_kinds.dirichlet(
            LABELS, alpha=0.3, capped=capped, rng=rng, **wanted
        )
    images = np.zeros((len(LABELS), 8, 8, 1), np.uint8)
    held = partition.hold(images, LABELS, parts)
    assert len(held.images) == len(held.labels) == len(LABELS) + 1
    length = held.padded(np.array([0]))[0].shape[1]
    assert length * clients > 1.2 * len(LABELS)  # or there is nothing to save
    for client in (0, clients - 1):
        _, labels, (size,) = held.padded(np.array([client]))
        assert np.array_equal(labels[0, :size], LABELS[parts[client]])


def test_as_arrays_survives_savez_and_gives_the_parts_back(tmp_path):
    whole = split()
    parts = partition_kinds.dirichlet(
        LABELS[whole.private_train],
        num_clients=10,
        alpha=0.3,
        min_size=1,
        rng=np.random.default_rng(0),
    )
    np.savez(tmp_path / "partition.npz", **partition.as_arrays(whole, parts))
    with np.load(tmp_path / "partition.npz") as saved:
        arrays = dict(saved)
    offsets = arrays["client_offsets"]
    assert offsets.dtype == np.int64
    found = np.split(arrays["client_positions"], offsets[1:-1])
    assert offsets[-1] == len(whole.private_train)
    assert all(map(np.array_equal, found, parts))
    assert np.array_equal(arrays["public_validation"], whole.public_validation)


def test_clients_without_any_sample_are_padded_to_nothing():
    images, labels = np.zeros((0, 2, 2, 1), np.uint8), np.zeros(0, np.int32)
    parts = [np.zeros(0, np.int64)] * 3
    held = partition.hold(images, labels, parts)
    padded_images, padded_labels, sizes = held.padded(np.arange(3))
    assert padded_images.shape == (3, 0, 2, 2, 1)
    assert padded_labels.shape == (3, 0)
    assert sizes.tolist() == [0, 0, 0]
    assert partition.label_counts(labels, parts, 2).tolist() == [[0, 0]] * 3
