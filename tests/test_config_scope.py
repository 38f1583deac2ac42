"""A setting that nothing reads is named, and changing it changes nothing."""

import sys

import jax
import pytest

from ecogen_jax import config as configs
from ecogen_jax.config_scope import without_effect
from ecogen_jax.relay.distillers import DISTILLERS
from ecogen_jax.relay.distillers.base import Hop
from ecogen_jax.run import command
from ecogen_jax.run.build import outline
from scripts import sweep
from tests import toy_maps

CONFIGS = (
    *("configs/relay_cycle.py", "configs/hops/d1.py", "configs/hops/d2.py"),
    "configs/federated/fedgen.py",
)
CYCLE, ROUTE, UP, FEDGEN = CONFIGS
FEDAVG, DENSE = "configs/federated/fedavg.py", "configs/federated/dense.py"
DISTILL = "configs/federated/feddistill.py"
ROUNDS = tuple(f"{name}.rounds" for name in (*configs.LEARNING, *configs.HOPS))
ROUNDS += ("federated.rounds",)
PRIVATE = ("federated.privacy.clip=1", "federated.statistics=local")
TEACHER = "configs/hops/teacher.py"
START = "protocol.start_from=runs/other"


def idle(spec, fields, *overrides):
    """Those of some fields that have no effect, and why."""
    return without_effect(configs.load(f"{spec}:smoke", overrides), fields)


def planned(spec, *overrides):
    """The rounds of each stage, and how many images of each class a device has."""
    experiment = outline(configs.load(f"{spec}:smoke", overrides))
    rounds = [(one.stage.name, one.stage.rounds) for one in experiment.plan]
    return rounds, experiment.label_counts.tolist()


@pytest.mark.parametrize("spec", CONFIGS)
def test_rounds_count_exactly_where_they_are_read(spec):
    unread = idle(spec, ROUNDS)
    before = planned(spec)
    assert planned(spec, *(f"{field}=3" for field in unread)) == before
    others = [f"{field}=3" for field in ROUNDS if field not in unread]
    assert {rounds for _, rounds in planned(spec, *others)[0]} == {3}


@pytest.mark.parametrize(
    ("spec", "overrides", "field", "value"),
    [
        *(
            (CYCLE, (f"data.partition={partition}",), "data.alpha", 5.0)
            for partition in ("iid", "shards", "dirichlet", "quantity")
        ),
        (CYCLE, ("data.partition=shards",), "data.shards_per_client", 3),
        (CYCLE, ("data.partition=dirichlet",), "data.shards_per_client", 3),
        (
            CYCLE,
            ("data.partition=domain", "data.domains=('fake', 'digits')"),
            "data.alpha",
            5.0,
        ),
        (ROUTE, (), "data.alpha", 5.0),  # all images are public
        (UP, (START,), "local.batch_size", 100),  # the least that a device has
        (UP, (START,), "local.rounds", 3),
        (ROUTE, (), "local.batch_size", 100),
    ],
)
def test_images_and_rounds_change_exactly_where_the_field_is_read(
    spec, overrides, field, value
):
    unread = idle(spec, [field], *overrides)
    changed = planned(spec, *overrides, f"{field}={value}")
    assert (planned(spec, *overrides) == changed) == (field in unread)


def test_local_rates_are_those_of_the_protocol():
    fields = ["local.learning_rate", "local.scratch_learning_rate"]
    assert idle(UP, fields) == {"local.learning_rate": "protocol.name = 'hops'"}
    assert idle(CYCLE, fields) == {}


@pytest.mark.parametrize(
    ("spec", "overrides", "field", "cause"),
    [
        (FEDAVG, (), "federated.fedprox.weight", "protocol.name = 'fedavg'"),
        (FEDAVG, (), "federated.privacy.delta", "federated.privacy.clip = 0.0"),
        (FEDAVG, PRIVATE, "federated.privacy.delta", None),
        (FEDAVG, (), "federated.keep", "federated.compression = 'none'"),
        (FEDAVG, ("federated.compression=topk",), "federated.keep", None),
        (FEDGEN, (), "generator.latent_size", "protocol.name = 'fedgen'"),
        (DENSE, (), "generator.latent_size", None),
        (DENSE, (), "up_end_edge.steps", "protocol.name = 'dense_rounds'"),
        (DENSE, (), "up_end_cloud.steps", None),
        (CYCLE, (), "federated.keep", "protocol.name = 'relay_cycle'"),
        (CYCLE, (), "local.learning_rate", None),
        (UP, (), "local.learning_rate", "protocol.name = 'hops'"),
        (UP, (), "local.scratch_learning_rate", None),
        (UP, (), "pretrain.steps", "protocol.route = ('end>edge', 'edge>cloud')"),
        (UP, (START,), "local.steps", "protocol.start_from = 'runs/other'"),
        (UP, (START,), "local.flip", "protocol.start_from = 'runs/other'"),
        (FEDAVG, (), "mesh.chunk", None),
        (FEDAVG, ("mesh.backend=scan",), "mesh.chunk", "mesh.backend = 'scan'"),
        (TEACHER, (), "generator.width", "protocol.route = ()"),
        (UP, (), "generator.width", None),
        (CYCLE, (), "data.public_missing_classes", None),
        (
            UP,
            ("data.public_fraction=0",),
            "data.public_missing_classes",
            "data.public_fraction = 0.0",
        ),
        (
            UP,
            ("data.public_fraction=0", START),
            "data.public_missing_classes",
            None,
        ),
        (FEDAVG, (), "federated.statistics", None),
        (
            FEDAVG,
            ("federated.share=head",),
            "federated.statistics",
            "federated.share = 'head'",
        ),
        (DISTILL, (), "federated.statistics", "protocol.name = 'feddistill'"),
        (
            CYCLE,
            (),
            "up_end_edge.inner_steps",
            "up_end_edge.distiller = 'relay'",
        ),
        (DENSE, (), "up_end_cloud.inner_steps", None),
        (DENSE, (), "up_end_edge.inner_steps", "protocol.name = 'dense_rounds'"),
        # The other run has to have the same, whatever the partition.
        (UP, (START,), "data.shards_per_client", None),
        (UP, (), "data.shards_per_client", "data.partition = 'dirichlet'"),
    ],
)
def test_the_cause_is_named(spec, overrides, field, cause):
    assert idle(spec, [field], *overrides).get(field) == cause


@pytest.mark.parametrize("name", DISTILLERS)
@pytest.mark.parametrize(
    ("field", "first", "second"), [("inner_steps", 2, 3), ("temperature", 2.0, 3.0)]
)
def test_fields_of_a_hop_count_exactly_where_they_are_read(name, field, first, second):
    def traced(value):
        generation, study = toy_maps.sizes(**{field: value})
        net = toy_maps.classifier(4)
        generator = toy_maps.generator()
        hop = Hop(net, (net,), generator, generation, study)
        distiller = DISTILLERS[name].build(hop)
        teachers, key = toy_maps.teachers(net), jax.random.key(0)
        student, images = net.init(key), generator.init(key)
        state = jax.eval_shape(distiller.init, student, images, teachers, key)
        return str(jax.make_jaxpr(distiller.step)(state, teachers, key))

    full = f"down_cloud_edge.{field}"
    unread = idle(ROUTE, [full], f"down_cloud_edge.distiller={name}")
    assert (traced(first) == traced(second)) == (full in unread)


def test_a_mask_without_its_term_has_no_effect():
    mask = "down_cloud_edge.adversarial_mask"
    weight = "down_cloud_edge.weights.adversarial"
    assert idle(ROUTE, [mask], f"{weight}=0.0") == {mask: f"{weight} = 0.0"}
    assert idle(ROUTE, [mask], f"{weight}=0.1") == {}


def test_the_temperature_counts_for_a_baseline():
    field, dfad = "down_cloud_edge.temperature", "down_cloud_edge.distiller=dfad"
    assert idle(ROUTE, [field], dfad, "protocol.baselines=('kd',)") == {}


def test_a_generator_counts_unless_no_hop_has_one():
    field, distiller = "generator.width", "down_cloud_edge.distiller"
    pixels, one = f"{distiller}=deep_inversion", "protocol.route=('cloud>edge',)"
    cause = f"{distiller} = 'deep_inversion'"
    assert idle(ROUTE, [field], pixels, one) == {field: cause}
    assert idle(ROUTE, [field], pixels) == {}  # the next hop has one


def test_names_are_compared_by_whole_parts():
    fields = ["federated.momentum", "localities", "run.workdir", "seed"]
    assert idle(FEDAVG, fields) == {}


def test_the_command_line_is_told(monkeypatch, capsys):
    monkeypatch.setattr(command.mesh, "start", lambda num_devices: None)
    words = ["--config.federated.fedprox.weight=1", "--config.federated.rounds=3"]
    spec = f"{FEDAVG}:smoke"
    monkeypatch.setattr(sys, "argv", ["train.py", "--config", spec, *words])
    assert command.read_config("").federated.rounds == 3
    line = "warning: federated.fedprox.weight has no effect with "
    assert capsys.readouterr().err == f"{line}protocol.name = 'fedavg'\n"


def test_a_grid_is_told_once(capsys):
    grid = ["federated.fedprox.weight=1.0,2.0", "protocol.name=fedavg,fedprox"]
    sweep.warn(sweep.sweep.cells(f"{FEDAVG}:smoke", [0, 1], grid, []))
    line = "warning: federated.fedprox.weight has no effect with "
    assert capsys.readouterr().err == f"{line}protocol.name = 'fedavg'\n"
