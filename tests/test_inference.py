"""Task inference: the same hits as one image after the other, whatever the chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import mesh
from ecogen_jax.relay.stage import Mapping
from ecogen_jax.serve import inference as serve
from tests import toy_nets

NET = toy_nets.classifier(5)


def parties(count):
    return jax.vmap(NET.init)(jax.random.split(jax.random.key(0), count))


def labelled(count):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (count, *toy_nets.SHAPE), dtype=np.uint8)
    return images, rng.integers(0, 3, count)


def by_hand(variables, images, labels, party):
    one = jax.tree.map(lambda a: a[party], variables)
    logits = NET.apply(one, jnp.asarray(images / 255, jnp.float32), train=False).value
    right = labels[np.argmax(logits, axis=1) == labels]
    return np.bincount(right, minlength=3)


@pytest.mark.parametrize("count", [3, 4, 9])
def test_hits_are_those_of_the_images_and_not_of_the_padding(monkeypatch, count):
    monkeypatch.setattr(serve, "CHUNK", 4)
    hits = serve.inference(NET, backend="vmap", num_devices=1)
    variables, (images, labels) = parties(2), labelled(count)
    got = hits(variables, images, labels)
    assert got.shape == (2, 3)
    for party in range(2):
        np.testing.assert_array_equal(
            got[party], by_hand(variables, images, labels, party)
        )


def test_all_splits_share_one_program(monkeypatch):
    traces = 0

    def counted(*arguments, train):
        nonlocal traces
        traces += 1
        return NET.apply(*arguments, train=train)

    monkeypatch.setattr(serve, "CHUNK", 8)
    hits = serve.inference(NET._replace(apply=counted), backend="vmap", num_devices=1)
    for count in (3, 8, 17):
        hits(parties(2), *labelled(count))
    assert traces == 1


@pytest.mark.parametrize("mapping", [("scan", 1), ("shard_map", 2)])
def test_parties_with_one_net_are_asked_once(monkeypatch, mapping):
    asked, map_clients = [], mesh.map_clients

    def mapped(function, **how):
        answer = map_clients(function, **how)

        def counted(variables):
            asked.append(jax.tree.leaves(variables)[0].shape[0])
            return answer(variables)

        return counted

    monkeypatch.setattr(serve.mesh, "map_clients", mapped)
    backend, num_devices = mapping
    hits = serve.inference(NET, backend=backend, num_devices=num_devices)
    served = jax.tree.map(lambda a: jnp.repeat(a[:1], 4, axis=0), parties(2))
    images, labels = labelled(30)
    got = hits(served, images, labels)
    assert asked == [1]
    expected = by_hand(served, images, labels, 0)
    np.testing.assert_array_equal(got, np.tile(expected, (4, 1)))
    # A net that differs in one number alone is another one, whichever number it is.
    leaves, tree = jax.tree.flatten(served)
    for place, leaf in enumerate(leaves):
        moved = leaf.at[(3, *(-1 for _ in leaf.shape[1:]))].add(0.5)
        other = jax.tree.unflatten(tree, [*leaves[:place], moved, *leaves[place + 1 :]])
        asked.clear()
        got = hits(other, images, labels)
        assert asked in ([4], [])  # it is traced once
        for party in range(4):
            expected = by_hand(other, images, labels, party)
            np.testing.assert_array_equal(got[party], expected)


@pytest.mark.parametrize(
    "mapping", [("loop", 1), ("shard_map", 2), ("pmap", 2), ("vmap", 1, 1)]
)
def test_every_mapping_gives_the_same_hits(mapping):
    variables, some = parties(2), labelled(30)
    expected = serve.inference(NET, backend="vmap", num_devices=1)(variables, *some)
    got = serve.inference(NET, **Mapping(*mapping)._asdict())
    np.testing.assert_array_equal(got(variables, *some), expected)
    assert expected.sum() > 0


@pytest.mark.parametrize("mapping", [("vmap", 1), ("loop", 1), ("shard_map", 2)])
def test_an_ensemble_answers_with_the_mean_of_logits_over_all_kinds(
    monkeypatch, mapping
):
    monkeypatch.setattr(serve, "CHUNK", 4)
    other = toy_nets.classifier(8)
    keys = jax.random.split(jax.random.key(3), 3)
    groups = (parties(2), jax.vmap(other.init)(keys))
    images, labels = labelled(9)
    backend, num_devices = mapping
    hits = serve.ensemble((NET, other), backend=backend, num_devices=num_devices)
    logits = [
        net.apply(
            jax.tree.map(lambda a, i=party: a[i], group),
            jnp.asarray(images / 255, jnp.float32),
            train=False,
        ).value
        for net, group, size in zip((NET, other), groups, (2, 3), strict=True)
        for party in range(size)
    ]
    right = labels[np.argmax(np.mean(logits, axis=0), axis=1) == labels]
    got = hits(groups, images, labels)
    np.testing.assert_array_equal(got, np.bincount(right, minlength=3))


def test_flops_of_one_image_are_those_of_its_matrix_products_and_little_more():
    products = 2 * 5 * (toy_nets.PIXELS + toy_nets.CLASSES)
    counted = serve.flops_per_image(NET, toy_nets.SHAPE)
    assert products < counted < products + 60
