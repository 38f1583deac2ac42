"""Generated images that are kept: the newest few of each class, hop by hop."""

import numpy as np
import pytest

from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.bank import Bank
from ecogen_jax.relay.distillers.base import HopState
from ecogen_jax.run.checkpoint import CheckpointError
from ecogen_jax.run.samples import PER_CLASS, add_samples

NOTHING = Variables({}, {})


def hop(labels, written):
    """A hop whose first party's image number i has the value i everywhere."""
    size = len(labels)
    images = np.broadcast_to(np.arange(size)[:, None, None, None], (size, 2, 2, 1))
    bank = Bank(
        images=np.stack([images, images + 100]).astype(np.uint8),
        labels=np.array([labels, labels], np.int32),
        logits=np.zeros((2, size, 3), np.float32),
        written=np.array([written, written], np.int32),
    )
    steps = np.zeros(2, np.int32)
    return HopState(NOTHING, (), NOTHING, (), bank, (), (), steps)


def kept(folder, name):
    return np.load(folder / "samples.npz")[name][:, 0, 0, 0].tolist()


def test_the_newest_of_each_class_are_kept_in_order_of_the_label(tmp_path):
    # 13 of 10 places are written: 0 to 2 are the newest, and 3 is the oldest.
    add_samples(tmp_path, 1, "down", hop([0, 1, 0, 1, 1, 1, 1, 0, 0, 0], written=13))
    assert PER_CLASS == 4
    assert kept(tmp_path, "1/down") == [2, 0, 9, 8, 1, 6, 5, 4]


def test_places_that_were_never_written_are_not_kept(tmp_path):
    add_samples(tmp_path, 1, "down", hop([2, 1, 2, 0, 0, 0], written=3))
    assert kept(tmp_path, "1/down") == [1, 2, 0]


def cut(whole):
    return whole[: len(whole) // 2]


def flip(whole):
    """Changes a byte inside the compressed images."""
    at = whole.index(b".npy") + 60
    return whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]


@pytest.mark.parametrize("harm", [lambda whole: b"", cut, flip])
def test_a_damaged_file_is_told_with_the_remedy(tmp_path, harm):
    file = tmp_path / "samples.npz"
    add_samples(tmp_path, 1, "down", hop([0, 1, 2], written=3))
    file.write_bytes(harm(file.read_bytes()))
    with pytest.raises(CheckpointError, match=r"samples.npz is damaged .*; delete it"):
        add_samples(tmp_path, 1, "up", hop([0, 1, 2], written=3))


def test_every_hop_adds_its_entry_and_training_adds_none(tmp_path):
    add_samples(tmp_path, 0, "pretrain", {"no": "hop"})
    assert not (tmp_path / "samples.npz").exists()
    add_samples(tmp_path, 1, "no_bank", hop([0, 1, 2], written=0))
    assert not (tmp_path / "samples.npz").exists()
    for cycle, name in ((1, "down"), (1, "up"), (2, "down")):
        add_samples(tmp_path, cycle, name, hop([0, 1, 2], written=3))
    assert np.load(tmp_path / "samples.npz").files == ["1/down", "1/up", "2/down"]
    assert [path.name for path in tmp_path.iterdir()] == ["samples.npz"]
