"""From a config to who has which images: kinds of partition, and edges that differ."""

import numpy as np
import pytest

from ecogen_jax import config as configs
from ecogen_jax.config import ConfigError
from ecogen_jax.config_rules import DOMAINS
from ecogen_jax.data import sources
from ecogen_jax.data.sources import Dataset
from ecogen_jax.relay.parties import Topology
from ecogen_jax.run import build_data


def make(**fields):
    """A smoke config on generated data."""
    config = configs.default()
    configs.smoke(config)
    for field, value in fields.items():
        config.update_from_flattened_dict({field.replace("__", "."): value})
    configs.check(config)
    return config


def share(config, dataset=None):
    topology = Topology(config.topology.num_edges, config.topology.devices_per_edge)
    return build_data.share(config, dataset or build_data.load(config), topology)


def refused(config):
    with pytest.raises(ConfigError) as caught:
        share(config)
    return caught.value


def skew(counts):
    """Mean share of a device's commonest class."""
    return (counts.max(axis=1) / counts.sum(axis=1)).mean()


def test_each_kind_of_partition_has_its_skew():
    def counts(kind, **fields):
        return share(make(data__partition=kind, **fields)).evidence.private

    even = counts("iid")
    assert np.ptp(even.sum(axis=1)) <= 1
    assert skew(even) < 0.2
    sizes = counts("quantity", data__alpha=0.5)
    assert np.ptp(sizes.sum(axis=1)) > 100
    assert skew(sizes) < 0.25
    labels = counts("dirichlet", data__alpha=0.1)
    assert skew(labels) > 0.4
    cut = counts("shards", data__shards_per_client=1)
    assert np.ptp(cut.sum(axis=1)) <= 1
    assert (cut > 0).sum(axis=1).max() <= 5  # a quarter of ten classes, and two ends
    assert all(each.sum() == 900 for each in (even, sizes, labels, cut))


def test_the_default_is_the_partition_by_label():
    default, named = share(make()), share(make(data__partition="dirichlet"))
    for name, array in default.arrays.items():
        np.testing.assert_array_equal(array, named.arrays[name])
    assert set(default.arrays) == {
        *("public_train", "public_validation", "private_train", "private_validation"),
        *("client_positions", "client_offsets", "label_counts"),
    }


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"data__partition": "shards", "data__shards_per_client": 226}, "shards_per_"),
        ({"data__partition": "quantity", "data__alpha": 1e-3}, "alpha"),
    ],
)
def test_what_no_division_can_give_is_refused_by_the_field_to_change(fields, field):
    error = refused(make(**fields))
    assert error.field.startswith(f"data.{field}")
    assert "lower" in error.allowed


@pytest.mark.parametrize(
    ("fields", "field", "allowed"),
    [
        ({"validation_fraction": 1e-9}, "validation_fraction", "a larger one"),
        ({"public_fraction": 1e-6}, "public_fraction", "leaves public images"),
        ({"public_fraction": 1 - 1e-6}, "public_fraction", "leaves private images"),
        ({"validation_fraction": 0.999999}, "public_fraction", "validation_fraction ="),
    ],
)
def test_shares_that_leave_nothing_are_refused(fields, field, allowed):
    error = refused(make(**{f"data__{name}": value for name, value in fields.items()}))
    assert error.field == f"data.{field}"
    assert allowed in error.allowed


@pytest.mark.parametrize(
    ("fields", "field", "allowed"),
    [
        ({"domains": ("fake",)}, "data.domains", "unless data.partition = 'domain'"),
        ({"partition": "domain"}, "data.domains", "data.name = 'fake' is one"),
        (
            {"partition": "domain", "domains": ("digits", "usps")},
            *("data.domains", "data.name = 'fake' is one"),
        ),
        (
            {"partition": "domain", "domains": ("fake", "digits", "usps")},
            *("data.domains", "topology.num_edges = 2"),
        ),
        ({"partition": "domain", "domains": ("fake", "fake")}, "data.domains", "diff"),
        ({"domains": ("cifar10",)}, "data.domains", "mnist, usps"),
        ({"partition": "label"}, "data.partition", "dirichlet, dirichlet_capped, iid"),
        ({"shards_per_client": 0}, "data.shards_per_client", "1 or more"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields, field, allowed):
    with pytest.raises(ConfigError) as caught:
        make(**{f"data__{name}": value for name, value in fields.items()})
    assert caught.value.field == field
    assert allowed in caught.value.allowed


def test_smoke_keeps_the_domains_as_far_as_there_are_edges():
    for edges, expected in ((3, ("fake", "digits")), (1, ("fake",))):
        config = configs.default()
        config.topology.num_edges = edges
        config.data.update(partition="domain", domains=("mnist", "usps")[:edges])
        configs.smoke(config)
        configs.check(config)
        assert config.data.domains == expected


# Edges that differ in dataset: generated images, and digits in their shape.


@pytest.fixture(scope="module")
def config():
    return make(
        data__partition="domain",
        data__domains=("fake", "digits"),
        data__public_fraction=0.25,
        topology__num_edges=3,
    )


@pytest.fixture(scope="module")
def dataset(config):
    return build_data.load(config)


@pytest.fixture(scope="module")
def shares(config, dataset):
    return share(config, dataset)


def test_datasets_stand_one_after_the_other_in_the_shape_of_the_first(dataset):
    fake, digits = sources.load("fake"), sources.load("digits")
    assert dataset.train_images.shape == (2000 + 1442, 28, 28, 1)
    np.testing.assert_array_equal(dataset.train_images[:2000], fake.train_images)
    np.testing.assert_array_equal(dataset.test_images[:500], fake.test_images)
    # An image keeps its brightness in the other shape.
    brightness = dataset.test_images[500:].mean(axis=(1, 2, 3), dtype=float)
    before = digits.test_images.mean(axis=(1, 2, 3), dtype=float)
    np.testing.assert_allclose(brightness, before, rtol=0.1)
    np.testing.assert_array_equal(dataset.train_labels[:2000], fake.train_labels)
    np.testing.assert_array_equal(dataset.test_labels[500:], digits.test_labels + 10)
    assert (dataset.num_classes, dataset.synthetic) == (20, True)
    assert dataset.train_labels.dtype == np.int32


def blank(name):
    """Two images a class."""
    labels = np.arange(20, dtype=np.int32) % 10
    images = np.zeros((20, 28, 28, 1), np.uint8)
    return Dataset(name, images, labels, images, labels, 10, False, "here")


@pytest.mark.parametrize(
    ("domains", "first", "num_classes"),
    [
        (("mnist", "usps", "fashion_mnist"), (0, 0, 10), 20),
        (("fashion_mnist", "usps"), (10, 0), 20),
        (("mnist", "digits", "usps"), (0, 0, 0), 10),
        (("fashion_mnist",), (0,), 10),
    ],
)
def test_datasets_of_digits_share_their_classes_and_others_come_after(
    monkeypatch, domains, first, num_classes
):
    monkeypatch.setattr(sources, "load", lambda name, folder: blank(name))
    made = configs.default()
    made.data.update(name=domains[0], partition="domain", domains=domains)
    dataset = build_data.load(made)
    assert dataset.num_classes == num_classes
    labels = [np.arange(20) % 10 + shift for shift in first]
    np.testing.assert_array_equal(dataset.train_labels, np.concatenate(labels))


def test_every_dataset_that_edges_may_hold_has_its_classes_in_one_place():
    spaces = [name for space in build_data.LABEL_SPACES for name in space]
    assert sorted(spaces) == sorted(DOMAINS)


def test_the_outline_has_the_sizes_of_the_images(config, dataset):
    outline = build_data.outline(config)
    assert outline.train_images.shape == dataset.train_images.shape
    assert outline.test_images.shape == dataset.test_images.shape
    for half in ("train_labels", "test_labels"):
        here, there = getattr(outline, half), getattr(dataset, half)
        np.testing.assert_array_equal(np.bincount(here), np.bincount(there))


def test_devices_hold_the_dataset_of_their_edge(shares):
    # Edges 0 and 2 have generated images, which are of classes 0 to 9.
    np.testing.assert_array_equal(shares.arrays["device_domains"], [0, 0, 1, 1, 0, 0])
    counts = shares.evidence.private
    assert not counts[[0, 1, 4, 5], 10:].any()
    assert not counts[2:4, :10].any()
    # 0.75 of 2000 generated ones and all 1442 digits, less a tenth for validation.
    by_edge = counts.sum(axis=1).reshape(3, 2).sum(axis=1)
    np.testing.assert_array_equal(by_edge, [675, 1298, 675])


def test_only_the_first_dataset_has_a_public_half(shares, dataset):
    assert shares.evidence.public[:10].sum() == 450
    assert not shares.evidence.public[10:].any()
    halves = ("public_train", "public_validation", "private_train")
    parts = [shares.arrays[name] for name in (*halves, "private_validation")]
    everything = np.sort(np.concatenate(parts))
    np.testing.assert_array_equal(everything, np.arange(len(dataset.train_labels)))
    assert all((np.diff(part) > 0).all() for part in parts)


def test_every_image_that_is_judged_on_says_which_dataset_it_is_from(shares, dataset):
    for domains, labels in (
        (shares.arrays["test_domains"], dataset.test_labels),
        (shares.arrays["validation_domains"], shares.validation[1]),
    ):
        np.testing.assert_array_equal(domains, labels >= 10)
    # A tenth of 500 public, 1500 private and 1442 private ones.
    sizes = np.bincount(shares.arrays["validation_domains"])
    np.testing.assert_array_equal(sizes, [50 + 150, 144])


def test_every_dataset_needs_validation_images():
    few = {"data__public_fraction": 0.01, "data__validation_fraction": 0.0003}
    # Of 1980 private generated images one is kept, and of 1442 digits none.
    assert len(share(make(**few)).validation[1]) == 1
    domains = {"data__partition": "domain", "data__domains": ("fake", "digits")}
    error = refused(make(**few, **domains))
    assert (error.field, error.value) == ("data.validation_fraction", 0.0003)
    wanted = "a larger one, that keeps some of the 1442 training images of digits"
    assert error.allowed.startswith(wanted)


def test_classes_can_be_missing_from_the_public_half_alone(config, shares, dataset):
    lacking = configs.from_dict(configs.to_dict(config))
    lacking.data.public_missing_classes = (8,)
    found = share(lacking, dataset)
    assert found.evidence.public[8] == 0 < shares.evidence.public[8]
    np.testing.assert_array_equal(found.evidence.private, shares.evidence.private)
    lacking.data.public_missing_classes = (12,)
    error = refused(lacking)
    assert error.field == "data.public_missing_classes"
    assert "from 0, and below 10" in error.allowed


def test_a_dataset_too_small_for_its_edge_is_named():
    error = refused(
        make(
            data__partition="domain",
            data__domains=("fake", "digits"),
            data__public_fraction=0.999,
            data__alpha=100.0,
        )
    )
    assert error.field == "data.alpha"
    assert "domain 0, edge 0: no division of 2 samples" in error.allowed


def test_devices_of_a_federation_have_a_batch_of_the_federation():
    def federation(**fields):
        nets = {"nets__cloud": "cnn_small", "nets__edge": "cnn_small"}
        return make(protocol__name="fedavg", protocol__cycles=1, **nets, **fields)

    error = refused(federation(federated__batch_size=5000))
    assert error.field == "topology.devices_per_edge"
    assert "federated.batch_size" in error.allowed
    shares = share(federation(local__batch_size=5000))
    assert len(shares.evidence.private) == 4
