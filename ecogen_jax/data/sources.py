"""Named image datasets as checked numpy arrays: `load("mnist")`.

The same name gives the same arrays everywhere: for every provider, the decoded images
and labels must have the counts and the SHA-256 of the table below. Sources:
MNIST, LeCun et al. 1998; Fashion-MNIST, Xiao et al. 2017; CIFAR-10, Krizhevsky 2009;
USPS, Hull 1994, in the resampled halves of Rasmussen and Williams 2006; digits,
Alpaydin and Kaynak 1998, as scikit-learn ships them.
"""

import difflib
import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import datasets
import filelock
import numpy as np
import pyarrow as pa
import sklearn.datasets

from ecogen_jax.data.files import FOLDER_FILES, Arrays
from ecogen_jax.data.providers import providers

NAMES = ("mnist", "fashion_mnist", "cifar10", "usps", "digits", "fake")

_LOGGER = logging.getLogger(__name__)


class Dataset(NamedTuple):
    """A named dataset, checked.

    Attributes:
        name: one of `NAMES`.
        train_images: uint8 [n, h, w, c].
        train_labels: int32 [n].
        test_images: uint8 [m, h, w, c].
        test_labels: int32 [m].
        num_classes: labels run from 0 to `num_classes - 1`.
        synthetic: whether the images were generated rather than recorded.
        provider: where the arrays came from.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int
    synthetic: bool
    provider: str


class DataUnavailableError(RuntimeError):
    """No provider had the dataset; the message lists what was tried and why."""


class _Spec(NamedTuple):
    """What the arrays of a dataset must be: image shape, count by class, SHA-256."""

    shape: tuple[int, int, int]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    sha256: str


_SPECS = {
    "mnist": _Spec(
        (28, 28, 1),
        (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
        "e01a2336dfa29a82d2f956a620da1be7d0b6fdfcadd0a9b2725ffcb8e1274d74",
    ),
    "fashion_mnist": _Spec(
        (28, 28, 1),
        (6000,) * 10,
        (1000,) * 10,
        "690bb3f5c635d3f3bd647b9826c4df030a94f722917662f0728e02ed29202de7",
    ),
    "cifar10": _Spec(
        (32, 32, 3),
        (5000,) * 10,
        (1000,) * 10,
        "c257da322a0d649bdb1b5d7e7f6510de712a96dc7ce9d782e28bf81f8b5df748",
    ),
    "usps": _Spec(
        (16, 16, 1),
        (767, 622, 475, 406, 409, 361, 420, 390, 377, 422),
        (786, 647, 454, 418, 443, 355, 414, 402, 331, 399),
        "cc77daa426287e72613f7163e59c0d1450a008d896cf3f9b834c6dbc0589d895",
    ),
    "digits": _Spec(
        (8, 8, 1),
        (143, 146, 142, 147, 145, 146, 145, 144, 140, 144),
        (35, 36, 35, 36, 36, 36, 36, 35, 34, 36),
        "a2edc035772f5a3500f7a54e4fbcd1581a7bdb3744ec3b29c9642f5c819f2d06",
    ),
}


def load(name: str, *, folder: str = "", cache: str = "") -> Dataset:
    """Loads a dataset from the cache, or from the first provider that has it.

    Providers in order: `folder`, the HuggingFace hub when it answers, a package that
    ships the same files. `ecogen_jax.data.files.read_folder` lists the files that each
    name expects in `folder`. `digits` comes with scikit-learn and `fake` is generated:
    neither needs a network, a folder or the cache.

    Args:
        name: one of `NAMES`.
        folder: local folder with the original files, gzipped or not; empty for none.
        cache: folder for the checked Arrow copies; empty means the environment
            variable `ECOGEN_DATA`, or else `~/.cache/ecogen_jax`.

    Returns:
        The dataset; its arrays may be read-only views of the cached copy.

    Raises:
        ValueError: `name` is unknown.
        DataUnavailableError: every provider failed.
    """
    if name not in NAMES:
        nearest = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown dataset {name!r}: allowed are {', '.join(NAMES)}; "
            f"did you mean {nearest!r}?"
        )
    if name == "fake":
        return Dataset(name, *_fake(), 10, True, "generated")
    if name == "digits":
        return _checked(name, _digits(), "scikit-learn")
    return _load_cached(name, folder, _cache_root(cache) / name)


def outline(name: str) -> Dataset:
    """Describes a dataset without fetching it: blank images, labels by their counts.

    Args:
        name: one of `NAMES`.

    Returns:
        Arrays of the true shapes and types; the images take no memory.
    """
    if name == "fake":  # generated anyway, in the same time
        return load(name)
    spec = _SPECS[name]
    halves = [_blank(spec.shape, counts) for counts in spec[1:3]]
    return Dataset(
        name, *halves[0], *halves[1], len(spec.train_counts), True, "outline"
    )


def _blank(
    shape: tuple[int, int, int], counts: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return np.broadcast_to(np.uint8(0), (len(labels), *shape)), labels


def _checked(name: str, arrays: Arrays, provider: str) -> Dataset:
    """Returns the arrays as a dataset, or raises ValueError with what is wrong."""
    spec = _SPECS[name]
    _check_half("train", *arrays[:2], spec.shape, spec.train_counts)
    _check_half("test", *arrays[2:], spec.shape, spec.test_counts)
    found = _digest(arrays)
    if found != spec.sha256:
        raise ValueError(f"SHA-256 of the arrays is {found}, expected {spec.sha256}")
    return Dataset(name, *arrays, len(spec.train_counts), False, provider)


def _check_half(
    half: str,
    images: np.ndarray,
    labels: np.ndarray,
    shape: tuple[int, int, int],
    counts: tuple[int, ...],
) -> None:
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        raise ValueError(
            f"{half} images are {images.dtype} of shape {images.shape[1:]}, "
            f"expected uint8 of {shape}"
        )
    if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{half} labels are {labels.dtype} {labels.shape}, "
            f"expected int32 {images.shape[:1]}, one an image"
        )
    found = tuple(np.bincount(labels, minlength=len(counts)).tolist())
    if found != counts:
        raise ValueError(f"{half} images by class are {found}, expected {counts}")


def _digest(arrays: Arrays) -> str:
    """SHA-256 over shape and bytes of each array, the labels as little-endian int32."""
    sha256 = hashlib.sha256()
    for array in arrays:
        sha256.update(str(array.shape).encode())
        little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
        sha256.update(np.ascontiguousarray(little_endian).data)
    return sha256.hexdigest()


# The cache: one Arrow dataset with the splits train and test for each name


def _cache_root(cache: str) -> Path:
    chosen = cache or os.environ.get("ECOGEN_DATA") or "~/.cache/ecogen_jax"
    return Path(chosen).expanduser()


def _load_cached(name: str, folder: str, target: Path) -> Dataset:
    try:
        found = _read_cache(name, target)
        if found is not None:
            return found
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(target.with_name(f".{name}.lock")):
            # Another process may have written it while this one waited for the lock.
            found = _read_cache(name, target)
            if found is None:
                found = _fetch(name, folder)
                _write_cache(found, target)
    except OSError as error:
        raise DataUnavailableError(
            f"{name}: the folder of datasets cannot be read or written ({error}); name "
            "another one in $ECOGEN_DATA"
        ) from error
    return found


def _read_cache(name: str, target: Path) -> Dataset | None:
    """Returns the cached dataset, or None where there is none or it is damaged."""
    if not target.exists():
        return None
    try:
        splits = datasets.load_from_disk(target)
        provider = splits["train"].info.description
        halves = (_from_arrow(splits[half], _SPECS[name]) for half in ("train", "test"))
        arrays = Arrays(*(array for half in halves for array in half))
        return _checked(name, arrays, provider)
    except Exception as error:  # any damage leads to a new download
        _LOGGER.warning("cached copy %s refused: %s", target, _reason(error))
        return None


def _write_cache(dataset: Dataset, target: Path) -> None:
    """Writes under another name and renames: no process sees a half-written copy."""
    partial = target.with_name(f".{dataset.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a writer that was killed
    datasets.disable_progress_bars()
    _, train_images, train_labels, test_images, test_labels, *_ = dataset
    datasets.DatasetDict(
        train=_to_arrow(train_images, train_labels, dataset.provider),
        test=_to_arrow(test_images, test_labels, dataset.provider),
    ).save_to_disk(partial)
    shutil.rmtree(target, ignore_errors=True)  # a copy that was refused
    partial.rename(target)


def _to_arrow(
    images: np.ndarray, labels: np.ndarray, provider: str
) -> datasets.Dataset:
    pixels = images[0].size
    flat = pa.array(images.reshape(-1))
    table = pa.table(
        {
            "image": pa.FixedSizeListArray.from_arrays(flat, pixels),
            "label": pa.array(labels),
        }
    )
    return datasets.Dataset(
        datasets.table.InMemoryTable(table),
        info=datasets.DatasetInfo(description=provider),
    )


def _from_arrow(split: datasets.Dataset, spec: _Spec) -> tuple[np.ndarray, np.ndarray]:
    table = split.with_format("arrow")[:]
    images = table["image"].combine_chunks().flatten().to_numpy(zero_copy_only=True)
    return images.reshape(-1, *spec.shape), table["label"].to_numpy()


def _fetch(name: str, folder: str) -> Dataset:
    """Asks the providers in order; returns the first answer that passes the check."""
    reasons = [] if folder else ["folder: none was named"]
    wrong = ""
    for provider in providers(name, folder):
        try:
            arrays = provider.fetch()
        except Exception as error:  # clients raise any error; each reason is reported
            reasons.append(f"{provider.label}: {_reason(error)}")
        else:
            try:
                return _checked(name, arrays, provider.label)
            except ValueError as error:
                reasons.append(f"{provider.label}: {_reason(error)}")
                wrong = (
                    "use the first published version of the files, with which the "
                    "arrays were compared (for a new dataset, correct its entry in "
                    "`_SPECS` of data/sources.py); "
                )
        _LOGGER.info("%s refused: %s", name, reasons[-1])
    tried = "\n".join(f"  - {reason}" for reason in reasons)
    raise DataUnavailableError(
        f"dataset {name!r} is not available. Tried in order:\n{tried}\n"
        f"What to do: {wrong}connect to a network and try again; or put "
        f"{', '.join(FOLDER_FILES[name])} (gzipped or not) into a folder and name it "
        f"as `folder` (in a config: data.folder); or choose 'digits' or 'fake', "
        f"which need neither."
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


# Datasets that need no provider


def _digits() -> Arrays:
    """Takes every fifth image of each class, in scikit-learn's order, as the test set.

    Pixel values 0 to 16 are scaled to 0 to 255.
    """
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    images = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    labels = labels.astype(np.int32)
    is_test = np.zeros(len(labels), bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[4::5]] = True
    return Arrays(images[~is_test], labels[~is_test], images[is_test], labels[is_test])


def _fake() -> Arrays:
    """Draws 2,000 + 500 images: a coarse pattern for each class under heavy noise."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 2, (10, 7, 7)).repeat(4, axis=1).repeat(4, axis=2)
    labels = rng.permutation(np.arange(2500, dtype=np.int32) % 10)
    noise = rng.integers(0, 128, (2500, 28, 28))
    images = (127 * patterns[labels] + noise).astype(np.uint8)[..., None]
    return Arrays(images[:2000], labels[:2000], images[2000:], labels[2000:])
