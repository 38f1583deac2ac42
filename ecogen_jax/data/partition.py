"""Splits a training set into public and private halves, and stores clients' data.

`partition_kinds.py` splits the private half over the clients.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from ecogen_jax.data.rows import rows


class Split(NamedTuple):
    """Four disjoint sets of positions into the training labels, each sorted.

    Attributes:
        public_train: int64 [a], training images of the cloud.
        public_validation: int64 [b], validation images of the cloud.
        private_train: int64 [c], split over the end devices.
        private_validation: int64 [d], validation images of the end devices.
    """

    public_train: np.ndarray
    public_validation: np.ndarray
    private_train: np.ndarray
    private_validation: np.ndarray


def split(
    labels: Int[np.ndarray, " n"],
    *,
    public_fraction: float,
    validation_fraction: float,
    public_missing_classes: Sequence[int],
    rng: np.random.Generator,
) -> Split:
    """Splits positions at random into public and private, train and validation.

    Images of the missing classes are dropped from the public half and not used, so the
    private half is the same with and without missing classes.

    Args:
        labels: class of each image [n].
        public_fraction: share of the images in the public half, in [0, 1].
        validation_fraction: share of each half kept for validation, in (0, 1).
        public_missing_classes: classes to remove from the public half.
        rng: source of randomness; consumed alike whatever the missing classes.

    Returns:
        The four sets of positions.

    Raises:
        ValueError: a fraction is out of range, or a missing class is not in `labels`.
    """
    _check_fractions(public_fraction, validation_fraction)
    _check_missing(public_missing_classes, labels)
    order = rng.permutation(len(labels))
    public, private = _cut(order, public_fraction)
    public_validation, public_train = _cut(public, validation_fraction)
    private_validation, private_train = _cut(private, validation_fraction)
    missing = np.isin(labels, public_missing_classes)
    return Split(
        np.sort(public_train[~missing[public_train]]),
        np.sort(public_validation[~missing[public_validation]]),
        np.sort(private_train),
        np.sort(private_validation),
    )


def _check_fractions(public: float, validation: float) -> None:
    if not 0.0 <= public <= 1.0:
        raise ValueError(
            f"public_fraction is {public}: allowed is a number from 0 (nothing is "
            "public) to 1 (nothing is private); 0.5 gives equal halves"
        )
    if not 0.0 < validation < 1.0:
        raise ValueError(
            f"validation_fraction is {validation}: allowed is a number between 0 and "
            "1, both excluded, such as 0.1"
        )


def _check_missing(missing: Sequence[int], labels: np.ndarray) -> None:
    present = np.unique(labels)
    if not np.isin(missing, present).all() or len(set(missing)) == len(present):
        raise ValueError(
            f"public_missing_classes is {tuple(missing)}: allowed are some, not all, "
            f"of the classes {present.tolist()}; leave it empty to keep every class"
        )


def _cut(positions: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    first = round(fraction * len(positions))
    return positions[:first], positions[first:]


def label_counts(
    labels: Int[np.ndarray, " n"], parts: Sequence[np.ndarray], num_classes: int
) -> Int[np.ndarray, "clients classes"]:
    """Counts the samples of each class that each client holds.

    Args:
        labels: class of each sample [n].
        parts: for each client, positions into `labels`.
        num_classes: number of columns.

    Returns:
        int64 counts [clients, classes].
    """
    return np.stack(
        [np.bincount(labels[part], minlength=num_classes) for part in parts]
    )


class Held(NamedTuple):
    """The clients' samples, concatenated without padding.

    Attributes:
        images: [n + 1, h, w, c]; the last one is zeros, for padding.
        labels: int32 [n + 1], likewise.
        offsets: int64 [clients + 1]; client i holds those from `offsets[i]` up to, and
            without, `offsets[i + 1]`.
    """

    images: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray

    def padded(
        self, clients: Int[np.ndarray, " some"]
    ) -> tuple[
        Shaped[np.ndarray, "some length h w c"],
        Int[np.ndarray, "some length"],
        Int[np.ndarray, " some"],
    ]:
        """Stacks the samples of some clients, padded with zeros.

        Args:
            clients: their numbers.

        Returns:
            Images, int32 labels and the int32 number of real samples of each. The
            length is always that of the largest client, so that one compiled program
            fits all clients.
        """
        sizes = np.diff(self.offsets)
        places = np.arange(sizes.max())
        numbers = np.where(
            places < sizes[clients, None],
            self.offsets[clients, None] + places,
            self.offsets[-1],
        )
        images, labels = (rows(a, numbers) for a in (self.images, self.labels))
        return images, labels, sizes[clients].astype(np.int32)


def hold(
    images: Shaped[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, " n"],
    parts: Sequence[np.ndarray],
) -> Held:
    """Copies what each client holds.

    Args:
        images: samples [n, h, w, c].
        labels: class of each sample [n].
        parts: for each client, positions into `images` and `labels`.
    """
    offsets = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
    size, positions = int(offsets[-1]), np.concatenate(parts)
    held = Held(
        np.zeros((size + 1, *images.shape[1:]), images.dtype),
        np.zeros(size + 1, np.int32),
        offsets,
    )
    np.take(images, positions, axis=0, out=held.images[:size], mode="clip")
    held.labels[:size] = labels[positions]
    return held


def as_arrays(split: Split, parts: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Names the arrays of a partition for `numpy.savez`.

    Args:
        split: the public and private positions.
        parts: for each client, positions into `split.private_train`.

    Returns:
        The fields of `split`, and `client_positions` with `client_offsets`: client i
        holds `client_positions[client_offsets[i] : client_offsets[i + 1]]`.
    """
    offsets = np.cumsum([0, *(len(part) for part in parts)])
    return {
        **split._asdict(),
        "client_positions": np.concatenate(parts),
        "client_offsets": offsets.astype(np.int64),
    }
