"""Routes of hops in a config: which ones can be taken, and what each asks for."""

import pytest

from ecogen_jax import config as config_lib
from ecogen_jax import config_hops
from ecogen_jax.config import HOPS, ConfigError


def hops_config(**fields):
    """The default, as a route of hops with some fields changed."""
    config = config_lib.default()
    config.protocol.update(name="hops", cycles=1)
    for field, value in fields.items():
        config.update_from_flattened_dict({field.replace("__", "."): value})
    return config


def test_every_hop_has_a_section_named_by_its_direction_and_tiers():
    assert config_hops.section("cloud>end") == "down_cloud_end"
    assert config_hops.section("end>edge") == "up_end_edge"
    assert len(set(HOPS)) == len(config_hops.ROUTE) == 6
    assert set(HOPS) < set(config_lib.default())


@pytest.mark.parametrize(
    ("route", "first"),
    [
        ((), "cloud"),
        (("cloud>edge",), "cloud"),
        (("cloud>edge", "cloud>end"), "cloud"),
        (("cloud>edge", "edge>end", "end>cloud"), "cloud"),
        (("end>cloud", "cloud>edge"), "end"),
        (("end>edge", "edge>cloud", "cloud>edge", "edge>end"), "end"),
    ],
)
def test_a_route_may_take_any_way_that_knowledge_can(route, first):
    config = hops_config(protocol__route=route)
    config_lib.check(config)
    assert config_hops.first_tier(config) == first
    assert config_hops.devices_train(config) == (first == "end")


def test_smoke_shrinks_what_hops_need_and_fetches_nothing():
    config = hops_config(
        up_end_cloud__inner_steps=50,
        nets__end="cnn_small,mlp,lenet5",
        data__public_fraction=1.0,
        protocol__route=("cloud>edge",),
        protocol__baselines=("kd", "kd_usps", "kd_fashion_mnist"),
        protocol__start_from="runs/other",
    )
    config_lib.smoke(config)
    config_lib.check(config)
    assert config.up_end_cloud.inner_steps == 2
    assert config.down_cloud_edge.inner_steps == 1
    assert config.topology.devices_per_edge == 3  # one of each kind
    assert config.protocol.baselines == ("kd", "kd_digits")
    assert config.protocol.start_from == ""
    assert config.data.public_fraction == 1.0


def test_without_a_route_devices_train_where_nothing_is_public():
    config = hops_config(data__public_fraction=0.0)
    config_lib.check(config)
    assert config_hops.first_tier(config) == "end"
    assert config_hops.devices_train(config_lib.default())  # a relay cycle


KINDS = "cnn_small,mlp"


@pytest.mark.parametrize(
    ("fields", "refused", "allowed"),
    [
        ({"protocol__route": ("edge>end",)}, "protocol.route", "starts at the cloud"),
        (
            {"protocol__route": ("cloud>edge", "end>cloud")},
            "protocol.route",
            "teaches the end before 'end>cloud'",
        ),
        ({"protocol__cycles": 2}, "protocol.cycles", "one pass"),
        (
            {"protocol__route": (), "protocol__start_from": "runs/other"},
            "protocol.start_from",
            "nothing would be left to do",
        ),
        (
            {"protocol__route": ("cloud>edge",), "data__public_fraction": 0.0},
            "data.public_fraction",
            "public images",
        ),
        (
            {"protocol__route": ("end>edge",), "data__public_fraction": 1.0},
            "data.public_fraction",
            "private images",
        ),
        (
            {"protocol__route": ("cloud>end",), "nets__end": KINDS},
            "nets.end",
            "one kind of net",
        ),
        (
            {"nets__end": "cnn_small,mlp,lenet5", "topology__devices_per_edge": 2},
            "nets.end",
            "2",
        ),
        ({"protocol__baselines": ("kd",)}, "protocol.baselines", "at the cloud"),
        (
            {"protocol__route": ("end>cloud",), "protocol__baselines": ("student",)},
            "protocol.baselines",
            "at the cloud",
        ),
        (
            {"protocol__route": ("cloud>edge",), "protocol__baselines": ("kd_mnist",)},
            "protocol.baselines",
            "'kd'",
        ),
    ],
)
def test_a_route_that_cannot_be_taken_is_refused(fields, refused, allowed):
    with pytest.raises(ConfigError) as caught:
        config_lib.check(hops_config(**fields))
    assert caught.value.field == refused
    assert allowed in caught.value.allowed


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("protocol.route", ("cloud>edge",)),
        ("protocol.baselines", ("kd",)),
        ("protocol.start_from", "runs/other"),
        ("protocol.hand_on_generators", True),
        ("nets.end", KINDS),
        ("data.public_fraction", 0.0),
        ("data.public_fraction", 1.0),
    ],
)
def test_a_relay_cycle_refuses_what_only_hops_have(field, value):
    config = config_lib.default()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ConfigError) as caught:
        config_lib.check(config)
    assert caught.value.field == field


@pytest.mark.parametrize("nets", ["cnn_small,cnn_smal", "mlp,mlp", "mlp,", ""])
def test_kinds_of_net_are_different_names_of_the_registry(nets):
    choices = {"nets.end": ("cnn_small", "mlp")}
    config_lib.check(hops_config(nets__end=KINDS), choices)
    with pytest.raises(ConfigError, match="with commas between"):
        config_lib.check(hops_config(nets__end=nets), choices)
