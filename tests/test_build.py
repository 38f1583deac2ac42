"""From a config to an experiment: what fits, and what is refused with its cure."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import config as configs
from ecogen_jax.config import ConfigError
from ecogen_jax.data import sources
from ecogen_jax.energy import meter
from ecogen_jax.relay.distillers import DISTILLERS
from ecogen_jax.relay.ensemble import equal_weights
from ecogen_jax.run import build as build_lib
from ecogen_jax.run import build_route
from ecogen_jax.run.build import build, outline
from ecogen_jax.run.build_data import resized

HOP_WEIGHTS = tuple(configs.default().down_cloud_edge.weights)


def make(*route, **fields):
    """A smoke config on generated data: a route, or a relay cycle without one."""
    config = configs.default()
    configs.smoke(config)
    if route:
        config.protocol.update(name="hops", cycles=1, route=route)
    for field, value in fields.items():
        config.update_from_flattened_dict({field.replace("__", "."): value})
    return config


def refused(config):
    with pytest.raises(ConfigError) as caught:
        outline(config)
    return caught.value


def blank(name):
    return np.zeros((1, 28, 28, 1), np.uint8)


def legs(*route, **fields):
    return build_route.route(make(*route, **fields), blank).legs


def test_a_tier_that_knows_something_returns_only_when_a_hop_comes_up_to_it():
    there = legs("end>edge", "edge>cloud", "cloud>edge", "edge>end")
    assert [leg.returns for leg in there] == [False] * 4
    again = legs("cloud>edge", "edge>end", "end>cloud", "cloud>end")
    assert [leg.returns for leg in again] == [False, False, True, False]
    cycle = {leg.stage: leg.returns for leg in legs()}
    assert cycle == {
        "down/cloud_edge": False,
        "down/edge_end": False,
        "up/end_edge": True,
        "up/edge_cloud": True,
    }


def names(config):
    return [stage.name for _, stage in outline(config).plan]


def test_who_trains_goes_on_from_the_generator_that_it_holds_if_asked():
    way = ("end>edge", "edge>cloud", "cloud>edge", "edge>end")
    assert [leg.generator for leg in legs(*way)] == ["", "", "", ""]
    handed = legs(*way, protocol__hand_on_generators=True)
    # Nothing but weights goes up; down, the edge was sent the cloud's newest.
    assert [leg.generator for leg in handed] == ["", "", "cloud", "cloud"]


def test_a_generator_that_was_trained_on_since_was_never_sent():
    way = ("cloud>edge", "cloud>end", "edge>end")
    handed = legs(*way, protocol__hand_on_generators=True)
    assert [leg.generator for leg in handed] == ["", "cloud", ""]


@pytest.mark.parametrize(
    ("hop", "distiller"),
    [("down_cloud_edge", "deep_inversion"), ("down_edge_end", "nayer")],
)
def test_a_generator_that_nobody_goes_on_from_is_not_handed_on(hop, distiller):
    with pytest.raises(ConfigError, match=r"hand_on_generators = True.*relay"):
        legs(
            *("cloud>edge", "edge>end"),
            protocol__hand_on_generators=True,
            **{f"{hop}__distiller": distiller, f"{hop}__weights__balance": 0.0},
        )


def test_a_moving_average_needs_a_generator_that_lives_on():
    with pytest.raises(ConfigError, match=r"generator_average = 0\.9.*relay"):
        outline(
            make(
                "cloud>edge",
                down_cloud_edge__distiller="nayer",
                down_cloud_edge__generator_average=0.9,
                down_cloud_edge__weights__balance=0.0,
            )
        )


@pytest.mark.parametrize("weights", ["by_class", "learned"])
def test_weights_that_co_boosting_learns_are_told_where_to_begin(weights):
    remedy = rf"up_end_cloud.teacher_weights = '{weights}'.*equal or label_counts"
    with pytest.raises(ConfigError, match=remedy):
        outline(
            make(
                "end>cloud",
                up_end_cloud__distiller="co_boosting",
                up_end_cloud__teacher_weights=weights,
                up_end_cloud__weights__balance=0.0,
                data__public_fraction=0.0,
            )
        )


def test_weights_are_learned_from_images_that_were_made_for_a_label():
    fields = {
        "up_end_cloud__teacher_weights": "learned",
        "data__public_fraction": 0.0,
    }
    outline(make("end>cloud", **fields))
    remedy = r"teacher_weights = 'learned'.*by_class.*cross_entropy is 0"
    with pytest.raises(ConfigError, match=remedy):
        outline(make("end>cloud", up_end_cloud__weights__cross_entropy=0.0, **fields))


def test_a_route_gives_its_stages_in_order():
    config = make(
        *("cloud>edge", "edge>end"),
        protocol__baselines=("kd", "kd_digits"),
        data__public_fraction=1.0,
    )
    assert names(config) == [
        *("pretrain", "baseline/kd", "baseline/kd_digits"),
        *("down/cloud_edge", "down/edge_end"),
    ]
    config = make("end>cloud", nets__end="mlp,cnn_small", data__public_fraction=0.0)
    assert names(config) == ["train/mlp", "train/cnn_small", "up/end_cloud"]
    config.protocol.start_from = "runs/other"
    assert names(config) == ["up/end_cloud"]


def test_without_a_route_one_tier_trains_and_nothing_else_happens():
    config = make("cloud>edge", protocol__route=())
    assert names(config) == ["pretrain"]
    config.data.public_fraction = 0.0
    assert names(config) == ["train"]


@pytest.mark.parametrize("section", ["pretrain", "local", "up_end_cloud"])
def test_a_shift_that_leaves_nothing_of_an_image_is_refused(section):
    config = make("cloud>edge")
    side = min(sources.outline(config.data.name).train_images.shape[1:3])
    config[section].shift = side - 1
    outline(config)
    config[section].shift = side
    with pytest.raises(ConfigError, match=rf"{section}\.shift.*less than {side}, "):
        outline(config)


def test_a_hop_gets_the_sizes_of_its_section():
    fields = {
        "rounds": 3,
        "steps": 5,
        "student_steps": 7,
        "inner_steps": 2,
        "batchnorm_momentum": 0.2,
        "shift": 2,
        "flip": True,
        "teacher_weights": "equal",
    }
    config = make("end>cloud", data__public_fraction=0.0)
    config.up_end_cloud.update(fields)
    given = {}

    def build_it(hop):
        given.update(hop._asdict())
        return DISTILLERS["relay"].build(hop)

    kinds = dict(DISTILLERS, relay=DISTILLERS["relay"]._replace(build=build_it))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_route, "DISTILLERS", kinds)
        stage = outline(config).plan[-1].stage
    assert stage.rounds == 3
    generation, study = given["generation"], given["study"]
    assert (generation.inner_steps, generation.augmentation) == (2, (2, True))
    assert generation.batchnorm_momentum == 0.2
    assert (study.steps, study.total_steps) == (7, 3 * 5 * 7)
    assert len(given["teachers"]) == 1
    assert not study.keep_statistics
    assert build_route.WEIGHINGS["equal"] is equal_weights


def test_a_baseline_takes_as_many_student_steps_as_the_hop():
    config = make("cloud>edge", protocol__baselines=("student",))
    config.down_cloud_edge.update(rounds=3, steps=5, student_steps=7)
    stage = outline(config).plan[1].stage
    assert stage.name == "baseline/student"
    settings = build_route.learning(
        config, outline(config).nets, build_route.route(config, blank)
    )["baseline"]
    assert (stage.rounds, settings.steps) == (3, 35)


@pytest.mark.parametrize("name", sorted(set(DISTILLERS) - {"cmi"}))
def test_a_weight_that_the_distiller_has_no_use_for_is_refused(name):
    weights = {f"down_cloud_edge__weights__{term}": 0.0 for term in HOP_WEIGHTS}
    weights["down_cloud_edge__weights__contrastive"] = 0.5
    config = make("cloud>edge", down_cloud_edge__distiller=name, **weights)
    error = refused(config)
    assert error.field == "down_cloud_edge.weights.contrastive"
    assert set(error.allowed.partition("are ")[2].partition(";")[0].split(", ")) == (
        DISTILLERS[name].terms
    )
    named = re.search(r"configs/hops/\w+\.py", error.allowed)
    assert named
    assert pathlib.Path(named[0]).exists()


def test_a_hop_that_is_not_on_the_way_may_have_any_weight():
    outline(make("cloud>edge", up_end_cloud__weights__contrastive=0.5))


def test_a_relay_cycle_needs_a_generator_to_replay(monkeypatch):
    pixels = DISTILLERS["relay"]._replace(keeps_generator=False)
    kinds = dict(DISTILLERS, deep_inversion=pixels)
    monkeypatch.setattr(build_route, "DISTILLERS", kinds)
    config = make(up_end_edge__distiller="deep_inversion")
    monkeypatch.setitem(build_lib.CHOICES, "up_end_edge.distiller", tuple(kinds))
    error = refused(config)
    assert error.field == "up_end_edge.distiller"
    assert "relay" in error.allowed
    config.protocol.update(name="hops", cycles=1, route=("end>edge",))
    assert outline(config).plan[-1].stage.name == "up/end_edge"


def test_a_net_that_is_too_large_for_the_images_is_refused_by_its_tier():
    config = make(data__name="digits", nets__edge="lenet5")
    assert refused(config).field == "nets.edge"


@pytest.mark.parametrize(
    ("precision", "dtype"), [("f32", "float32"), ("bf16", "bfloat16")]
)
def test_all_nets_compute_at_the_precision_of_the_config(precision, dtype):
    nets = outline(make(nets__precision=precision)).nets
    image, noise = jnp.zeros((1, 28, 28, 1)), jnp.zeros((1, 8))
    inputs = {net: (image,) for net in (nets.cloud, nets.edge, *nets.end)}
    inputs[nets.generator] = (noise, jnp.zeros(1, jnp.int32))
    for net, given in inputs.items():

        def call(key, *given, net=net):
            return net.apply(net.init(key), *given, train=True).value

        counted = meter.cost(call, jax.random.key(0), *given).by_class_and_dtype
        products = [key for key in counted if key[0] in ("conv", "matmul")]
        assert {dtype for _, dtype in products} == {dtype}


def test_waiting_needs_devices_whose_idle_power_is_known():
    error = refused(make(energy__include_idle=True))
    assert error.field == "energy.end_device"
    assert "raspberry_pi_4" in error.allowed
    outline(make(energy__include_idle=True, energy__end_device="raspberry_pi_4"))


def test_an_unknown_precision_is_refused():
    error = refused(make(nets__precision="fp16"))
    assert (error.field, error.nearest) == ("nets.precision", "bf16")


def test_devices_need_a_batch_of_images_only_if_they_train():
    fields = {"local__batch_size": 5000, "data__public_fraction": 0.5}
    assert refused(make(**fields)).field == "topology.devices_per_edge"
    assert refused(make("end>cloud", **fields)).field == "topology.devices_per_edge"
    experiment = outline(make("cloud>edge", **fields))
    assert experiment.label_counts.sum() == 900
    assert experiment.label_counts.sum(axis=1).min() >= 1


@pytest.mark.parametrize(
    ("route", "fraction", "private"), [("cloud>edge", 1.0, 0), ("end>edge", 0.0, 1800)]
)
def test_all_images_may_be_public_or_private(route, fraction, private):
    experiment = outline(make(route, data__public_fraction=fraction))
    assert experiment.label_counts.sum() == private
    assert len(experiment.partition["public_train"]) == 1800 - private
    assert len(experiment.validation[1]) == 200


def test_images_of_another_dataset_are_resized_and_keep_their_content():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3, 4, 4, 1), dtype=np.uint8)
    np.testing.assert_array_equal(resized(coarse, (4, 4, 1)), coarse)
    fine = resized(coarse, (8, 8, 3))
    assert fine.shape == (3, 8, 8, 3)
    assert fine.dtype == np.uint8
    np.testing.assert_array_equal(fine[..., 0], fine[..., 2])
    means = fine[..., 0].astype(float).mean(axis=(1, 2))
    np.testing.assert_allclose(means, coarse.mean(axis=(1, 2, 3)), atol=8)
    flat = np.full((7, 16, 16, 1), 200, np.uint8)
    assert set(resized(flat, (28, 28, 1)).ravel().tolist()) == {200}


def test_a_baseline_gets_the_other_dataset_in_the_run_s_shape(monkeypatch):
    routes = []

    def route(*given):
        routes.append(build_route.route(*given))
        return routes[-1]

    def shapes(*given):
        return jax.eval_shape(lambda: initial(*given))

    initial = build_lib.untrained
    monkeypatch.setattr(build_lib, "route", route)
    monkeypatch.setattr(build_lib, "untrained", shapes)  # nothing is compiled
    config = make("cloud>edge", protocol__baselines=("kd", "kd_noise", "kd_digits"))
    outline(config)
    build(config)
    blank, digits = (way.images["kd_digits"] for way in routes)
    assert blank.shape == digits.shape == (1442, 28, 28, 1)
    assert not blank.any()
    assert digits.max() > 200
    assert [*routes[0].images] == ["kd_digits"]


ZSKT = {
    **{f"down_cloud_edge__weights__{term}": 0.0 for term in HOP_WEIGHTS},
    "down_cloud_edge__distiller": "zskt",
    "down_cloud_edge__weights__adversarial": 1.0,
    "down_cloud_edge__weights__attention": 1.0,
}


@pytest.mark.parametrize(
    ("cloud", "edge", "wrong"),
    [
        ("cnn_large", "cnn_small", False),
        ("lenet5", "cnn_small", True),
        ("mlp", "mlp", True),
    ],
)
def test_attention_needs_stage_maps_of_equal_size(cloud, edge, wrong):
    config = make("cloud>edge", nets__cloud=cloud, nets__edge=edge, **ZSKT)
    if not wrong:
        outline(config)
        return
    error = refused(config)
    assert error.field == "down_cloud_edge.weights.attention"
    assert f"nets.cloud has [{'' if cloud == 'mlp' else '('}" in str(error)


def test_attention_is_that_of_one_teacher():
    hop = {
        name.replace("down_cloud_edge", "up_end_edge"): v for name, v in ZSKT.items()
    }
    error = refused(make("end>edge", data__public_fraction=0.0, **hop))
    assert error.field == "up_end_edge.weights.attention"
    assert "0 in a hop of 2 teachers" in str(error)


def test_images_are_made_by_some_term():
    alone = {**ZSKT, "down_cloud_edge__weights__adversarial": 0.0}
    error = refused(make("cloud>edge", nets__cloud="cnn_large", **alone))
    assert error.field == "down_cloud_edge.weights.adversarial"
    assert "nothing to make images by" in str(error)


def test_stages_on_real_images_are_built_with_their_augmentation(monkeypatch):
    given = []
    real = build_route.learn.learner

    def learner(net, **sizes):
        given.append(sizes.get("augmentation"))
        return real(net, **sizes)

    monkeypatch.setattr(build_route.learn, "learner", learner)
    config = configs.default()
    config.data.name = "fake"
    config.pretrain.update(shift=1, flip=True)
    config.local.update(shift=2, flip=False)
    outline(config)
    assert given == [(1, True), (2, False), (2, False)]
