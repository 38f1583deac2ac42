"""The plot of who holds what: legible for many devices and for skewed counts."""

import numpy as np
import pytest

from ecogen_jax.report import plots, runs
from tests.run_folders import make_run


@pytest.fixture
def run(tmp_path):
    return runs.read(make_run(tmp_path))


def test_no_private_images_no_partition(run):
    np.savez(run.path / "partition.npz", label_counts=np.zeros((10, 10), np.int64))
    assert plots.partition(run) is None


def test_partition_numbers_small_grids_only(run):
    assert len(plots.partition(run).axes[0].texts) == 100
    counts = np.ones((100, 10), np.int64)
    np.savez(run.path / "partition.npz", label_counts=counts)
    figure = plots.partition(run)
    axes, colors = figure.axes
    assert not axes.texts
    assert colors.get_ylabel() == "images"
    assert figure.get_size_inches()[1] == 9.0  # a phone's screen or two


def test_partition_tells_one_image_from_none_and_from_thousands(run):
    counts = np.array([[0, 1, 10, 100], [1000, 10_000, 0, 1]])
    np.savez(run.path / "partition.npz", label_counts=counts)
    (axes,) = plots.partition(run).axes
    (shown,) = axes.images
    np.testing.assert_array_equal(shown.get_array().mask, counts == 0)
    levels = shown.norm(counts[counts > 0])
    np.testing.assert_allclose(levels, np.array([0, 1, 2, 3, 4, 0]) / 4)
    assert [text.get_text() for text in axes.texts] == [f"{c}" for c in counts.ravel()]
    colors = [text.get_color() for text in axes.texts]
    assert colors == [*["black"] * 4, "white", "white", "black", "black"]


@pytest.mark.parametrize(
    ("data", "title"),
    [
        ({"alpha": 0.3}, "dirichlet, alpha 0.3"),  # of an older run
        ({"partition": "quantity", "alpha": 1.0}, "quantity, alpha 1"),
        ({"partition": "iid", "alpha": 0.3}, "iid"),
        ({"partition": "shards", "shards_per_client": 2}, "shards, 2 a device"),
        (
            {"partition": "domain", "domains": ["mnist", "usps"], "alpha": 0.1},
            "domain by edge: mnist, usps, alpha 0.1",
        ),
    ],
)
def test_partition_is_titled_with_its_kind(run, data, title):
    figure = plots.partition(run._replace(config={"data": data}))
    assert title in figure.axes[0].get_title().splitlines()
