"""The hub is probed, never waited for; clients are bounded and their words quoted."""

import io
import subprocess
import tarfile
import urllib.error

import datasets
import numpy as np
import pytest

from ecogen_jax.data import providers


def test_hub_cifar10_is_put_back_into_the_published_order(monkeypatch):
    images = np.arange(10, dtype=np.uint8).repeat(3072).reshape(10, 32, 32, 3)
    labels = np.arange(10, dtype=np.int32)
    hub = [6, 7, 4, 5, 2, 3, 8, 9, 0, 1]  # batches 4 3 2 5 1, of two images each
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.Value("int64")}
    )
    rows = {"img": list(images[hub]), "label": labels[hub].tolist()}
    split = datasets.Dataset.from_dict(rows, features=features)
    monkeypatch.setattr(providers, "_probe_hub", lambda: None)
    monkeypatch.setattr(
        providers.datasets, "load_dataset", lambda _: {"train": split, "test": split}
    )
    found = providers._from_hub("cifar10", "uoft-cs/cifar10")
    assert np.array_equal(found.train_images, images)
    assert np.array_equal(found.train_labels, labels)
    assert found.test_labels.tolist() == hub


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_an_offline_setting_keeps_the_hub_from_being_asked(monkeypatch, variable):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv(variable, "True")
    monkeypatch.setattr(providers, "_head", lambda url: pytest.fail("asked"))
    with pytest.raises(ConnectionError, match=f"not asked, because {variable} is set"):
        providers._probe_hub()


def test_any_http_status_counts_as_an_answer(monkeypatch):
    def refuse(request, timeout):
        raise urllib.error.HTTPError(request.full_url, 403, "no", {}, io.BytesIO())

    monkeypatch.setattr(providers.urllib.request, "urlopen", refuse)
    assert providers._head("https://hub.invalid") is None


def test_apt_lists_are_updated_once_when_the_first_download_fails(
    monkeypatch, tmp_path
):
    commands = []

    def run(command, *, cwd, **_):
        commands.append(command[:2])
        if commands == [["apt-get", "download"]]:
            raise subprocess.CalledProcessError(100, command)
        if command[1] == "download":
            (cwd / "dataset-fashion-mnist_all.deb").touch()
        if command[0] == "dpkg-deb":
            inside = cwd / "usr/share/datasets/fashion-mnist"
            inside.mkdir(parents=True)
            (inside / "train-images-idx3-ubyte.gz").write_bytes(b"content")

    monkeypatch.setattr(providers.subprocess, "run", run)
    monkeypatch.setattr(providers.shutil, "which", lambda name: f"/bin/{name}")
    providers._apt_download(tmp_path)
    assert commands == [
        ["apt-get", "download"],
        ["apt-get", "update"],
        ["apt-get", "download"],
        ["dpkg-deb", "-x"],
    ]
    assert (tmp_path / "train-images-idx3-ubyte.gz").read_bytes() == b"content"


def test_a_failing_client_is_quoted_and_a_slow_one_is_stopped(tmp_path, monkeypatch):
    script = "import sys; print('E404 no such package'); sys.exit(3)"
    with pytest.raises(RuntimeError, match=r"ended with 3: E404 no such package"):
        providers._run(["python3", "-c", script], tmp_path)
    script = "import sys; print(*'ABCDE', sep='\\n'); sys.exit(3)"
    with pytest.raises(RuntimeError, match=r"ended with 3: A \| D \| E$"):
        providers._run(["python3", "-c", script], tmp_path)
    monkeypatch.setattr(providers, "PACKAGE_TIMEOUT_S", 0.1)
    with pytest.raises(RuntimeError, match=r"was stopped after 0\.1 s"):
        providers._run(["sleep", "30"], tmp_path)


def test_a_dataset_of_ones_own_needs_neither_hub_nor_package(tmp_path, monkeypatch):
    monkeypatch.delitem(providers.HUB_IDS, "mnist")
    monkeypatch.delitem(providers._PACKAGES, "mnist")
    assert [one.label for one in providers.providers("mnist", str(tmp_path))] == [
        "folder"
    ]
    assert providers.providers("mnist") == []


def test_an_archive_cannot_write_outside_its_folder(tmp_path):
    with tarfile.open(tmp_path / "bad.tgz", "w:gz") as tar:
        for name in ("package/../../evil", "package/deep/file", "package/good"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    providers._unpack(tmp_path / "bad.tgz", "package/")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.tgz", "good"]
    assert not (tmp_path.parent / "evil").exists()
