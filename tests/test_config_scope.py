"""A setting that nothing reads is named, and changing it changes nothing."""

import sys

import pytest

from ecogen_jax import config as configs
from ecogen_jax.config_scope import without_effect
from ecogen_jax.run import command
from ecogen_jax.run.build import outline

CONFIGS = (
    "configs/relay_cycle.py",
    "configs/hops/d1.py",
    "configs/hops/d2.py",
    "configs/federated/fedgen.py",
)
ROUNDS = tuple(f"{name}.rounds" for name in (*configs.LEARNING, *configs.HOPS))
ROUNDS += ("federated.rounds",)


def planned(spec, *overrides):
    """The rounds of each stage, and how many images of each class a device has."""
    experiment = outline(configs.load(f"{spec}:smoke", overrides))
    rounds = [(one.stage.name, one.stage.rounds) for one in experiment.plan]
    return rounds, experiment.label_counts.tolist()


@pytest.mark.parametrize("spec", CONFIGS)
def test_rounds_count_exactly_where_they_are_read(spec):
    idle = without_effect(configs.load(f"{spec}:smoke"), ROUNDS)
    before = planned(spec)
    assert planned(spec, *(f"{field}=3" for field in idle)) == before
    others = [f"{field}=3" for field in ROUNDS if field not in idle]
    assert {rounds for _, rounds in planned(spec, *others)[0]} == {3}


@pytest.mark.parametrize(
    ("partition", "field", "value"),
    [
        *(("iid", "data.alpha", 5.0), ("shards", "data.alpha", 5.0)),
        *(("dirichlet", "data.alpha", 5.0), ("quantity", "data.alpha", 5.0)),
        ("shards", "data.shards_per_client", 3),
        ("dirichlet_capped", "data.shards_per_client", 3),
    ],
)
def test_the_partition_decides_what_is_read(partition, field, value):
    spec, asked = CONFIGS[0], f"data.partition={partition}"
    idle = without_effect(configs.load(f"{spec}:smoke", [asked]), [field])
    same = planned(spec, asked) == planned(spec, asked, f"{field}={value}")
    assert same == bool(idle)


def test_a_whole_section_or_a_longer_name_is_not_mistaken():
    config = configs.load("configs/federated/fedavg.py:smoke")
    fields = ["federated.fedprox.weight", "federated.momentum", "federated.rounds"]
    assert without_effect(config, fields) == ["federated.fedprox.weight"]
    dense = configs.load("configs/federated/dense.py:smoke")
    assert without_effect(dense, ["up_end_cloud.steps", "up_end_edge.steps"]) == [
        "up_end_edge.steps"
    ]
    assert without_effect(config, ["seed", "localities", "run.workdir"]) == []


def test_the_command_line_is_told(monkeypatch, capsys):
    monkeypatch.setattr(command.mesh, "start", lambda num_devices: None)
    words = ["--config.federated.fedprox.weight=1", "--config.federated.rounds=3"]
    spec = "configs/federated/fedavg.py:smoke"
    monkeypatch.setattr(sys, "argv", ["train.py", "--config", spec, *words])
    assert command.read_config("").federated.rounds == 3
    assert capsys.readouterr().err.splitlines() == [
        "warning: federated.fedprox.weight has no effect with protocol.name = "
        "'fedavg', data.partition = 'dirichlet_capped'"
    ]
