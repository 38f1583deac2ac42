"""Each file format is decoded to the pixels and labels that were written to it."""

import json

import numpy as np
import PIL.Image
import scipy.io

from ecogen_jax.data import files


def numbers(shape, start=0):
    return (
        (np.arange(start, start + np.prod(shape)) % 251).astype(np.uint8).reshape(shape)
    )


def test_cifar10_reads_the_same_images_from_planes_and_from_png(tmp_path):
    train, test = numbers((10, 32, 32, 3)), numbers((2, 32, 32, 3), start=5)
    labels = np.arange(10, dtype=np.int32)

    def write(stem, images, own):
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        rows = np.hstack([own[:, None].astype(np.uint8), planes])
        (tmp_path / f"{stem}.bin").write_bytes(rows.tobytes())
        PIL.Image.fromarray(images.reshape(-1, 1024, 3)).save(tmp_path / f"{stem}.png")

    for i in range(5):
        pair = slice(2 * i, 2 * i + 2)
        write(f"data_batch_{i + 1}", train[pair], labels[pair])
    write("test_batch", test, labels[:2])
    (tmp_path / "train_lables.json").write_text(json.dumps(labels.tolist()))
    (tmp_path / "test_lables.json").write_text("[0, 1]")
    for found in (
        files.read_folder("cifar10", tmp_path),
        files.read_cifar10_png(tmp_path),
    ):
        assert np.array_equal(found.train_images, train)
        assert np.array_equal(found.train_labels, labels)
        assert np.array_equal(found.test_images, test)
        assert np.array_equal(found.test_labels, labels[:2])


def test_usps_maps_minus_one_to_one_onto_bytes_row_by_row(tmp_path):
    patterns = np.linspace(-1, 1, 256)[:, None].repeat(3, axis=1)
    one_hot = -np.ones((10, 3), np.int16)
    one_hot[[4, 0, 9], range(3)] = 1
    halves = {"train": patterns, "test": -patterns}
    content = {f"{half}_patterns": x for half, x in halves.items()}
    content |= {f"{half}_labels": one_hot for half in halves}
    scipy.io.savemat(tmp_path / "usps_resampled.mat", content)
    found = files.read_folder("usps", tmp_path)
    ramp = np.arange(256).reshape(16, 16, 1)
    assert np.array_equal(found.train_images[0], ramp)
    assert np.array_equal(found.test_images[2], ramp[::-1, ::-1])
    assert found.train_labels.tolist() == [4, 0, 9]
