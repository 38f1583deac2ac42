"""Which teachers of a hop bring a prior: how frequent each class was with them."""

import numpy as np

from tests import toy_route
from tests.toy_route import PRIVATE, PUBLIC, legs


def priors(passage):
    return np.exp(passage.inputs.log_priors)


def smoothed(counts):
    """Shares of the images and ten more of each class."""
    return (counts + 10) / (counts + 10).sum(axis=-1, keepdims=True)


def test_teachers_that_are_heard_by_class_come_with_what_each_has_seen():
    route = legs("end>edge")
    settings = toy_route.settings(route, start=("train",), by_class=True)
    shares = smoothed(PRIVATE.reshape(2, 3, 3))
    heard = priors(toy_route.run(settings)["up/end_edge"])
    np.testing.assert_allclose(heard, shares, rtol=1e-6)
    plain = toy_route.settings(route, start=("train",))
    assert toy_route.run(plain)["up/end_edge"].inputs.log_priors is None


def test_a_net_that_a_hop_taught_from_nothing_has_learnt_no_prior():
    route = legs("end>edge", "edge>cloud", "end>cloud", returns=("end>cloud",))
    passages = toy_route.run(toy_route.settings(route, start=("train",), by_class=True))
    np.testing.assert_allclose(priors(passages["up/edge_cloud"]), 1 / 3, rtol=1e-6)
    devices_and_own = [[*smoothed(PRIVATE), np.full(3, 1 / 3)]]
    np.testing.assert_allclose(
        priors(passages["up/end_cloud"]), devices_and_own, rtol=1e-6
    )


def test_a_net_that_goes_on_in_a_hop_keeps_its_prior():
    route = legs("cloud>edge", "edge>cloud", "cloud>end", returns=("edge>cloud",))
    passages = toy_route.run(toy_route.settings(route, by_class=True))
    np.testing.assert_allclose(
        priors(passages["down/cloud_edge"]), [smoothed(PUBLIC[None])], rtol=1e-6
    )
    even = np.full((2, 3), 1 / 3)  # the edges
    np.testing.assert_allclose(
        priors(passages["up/edge_cloud"]), [[*even, smoothed(PUBLIC)]], rtol=1e-6
    )
    np.testing.assert_allclose(
        priors(passages["down/cloud_end"]), [smoothed(PUBLIC[None])], rtol=1e-6
    )
