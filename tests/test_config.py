"""The schema is locked, typed and checked; every mistake is named with its cure."""

import itertools
import json
import math

import pytest

from ecogen_jax import config as config_lib
from ecogen_jax import config_federated, config_hops, config_rules
from ecogen_jax.config import HOPS, ConfigError

RULES = config_rules.RULES | config_hops.RULES | config_federated.RULES

HEAD = "from ecogen_jax.config import default, parse_arg\n"


@pytest.fixture
def write(tmp_path):
    """Writes a config file whose body changes the default; returns its path."""
    numbers = itertools.count()

    def write_file(body="", head=HEAD):
        path = tmp_path / f"given_{next(numbers)}.py"
        lines = ["config = default()", *body.splitlines()]
        lines += ["parse_arg(config, arg)", "return config"]
        indented = "".join(f"    {line}\n" for line in lines)
        path.write_text(f"{head}\n\ndef get_config(arg=''):\n{indented}")
        return str(path)

    return write_file


def leaves(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def at(config, field):
    for part in field.split("."):
        config = config[part]
    return config


def test_the_default_passes_its_own_check():
    config_lib.check(config_lib.default())


def test_defaults_are_made_anew_each_time():
    first = config_lib.default()
    first.data.alpha = 9.0
    assert config_lib.default().data.alpha == 0.3


def test_every_number_has_a_rule():
    numbers = {
        field
        for field, value in leaves(config_lib.default().to_dict())
        if isinstance(value, int | float)
    }
    assert numbers - RULES.keys() == set()


def test_every_rule_has_a_field():
    fields = {field for field, _ in leaves(config_lib.default().to_dict())}
    assert RULES.keys() - fields == set()


def test_a_file_overrides_the_default_and_nothing_else(write):
    config = config_lib.load(write("config.data.alpha = 0.1\nconfig.seed = 4"))
    expected = config_lib.default()
    expected.data.alpha, expected.seed = 0.1, 4
    assert config.to_dict() == expected.to_dict()


def test_a_loaded_config_stays_locked(write):
    with pytest.raises(AttributeError, match="alhpa"):
        config_lib.load(write()).data.alhpa = 1.0


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("seed=3", "seed", 3),
        ("data.alpha=1", "data.alpha", 1.0),
        ("data.alpha=1e-2", "data.alpha", 0.01),
        ("data.name=digits", "data.name", "digits"),
        ("data.name='digits'", "data.name", "digits"),
        ("experiment=12", "experiment", "12"),
        ("data.folder=", "data.folder", ""),
        ("data.folder=a=b", "data.folder", "a=b"),
        ("data.public_missing_classes=(8, 9)", "data.public_missing_classes", (8, 9)),
        ("data.public_missing_classes=[7]", "data.public_missing_classes", (7,)),
        ("up_end_edge.weights.balance=0", "up_end_edge.weights.balance", 0.0),
    ],
)
def test_an_override_sets_its_field_in_the_field_s_type(write, override, field, value):
    got = at(config_lib.load(write(), [override]), field)
    assert got == value
    assert type(got) is type(value)


def test_the_last_override_wins_and_comes_after_smoke(write):
    overrides = ["local.rounds=3", "local.rounds=4"]
    assert config_lib.load(write() + ":smoke", overrides).local.rounds == 4


@pytest.mark.parametrize(
    ("override", "field", "nearest", "allowed"),
    [
        ("data.alhpa=1", "data.alhpa", "data.alpha", "data.alpha"),
        ("dta.alpha=1", "dta.alpha", "data.alpha", "topology"),
        ("alpha=1", "alpha", "data.alpha", "pretrain"),
        ("seed=1.5", "seed", "", "type int"),
        ("seed=True", "seed", "", "type int"),
        ("data.alpha=small", "data.alpha", "", "type float"),
        ("data.public_missing_classes=3", "data.public_missing_classes", "", "tuple"),
        ("mesh=vmap", "mesh", "", "mesh"),
        ("seed", "override", "", "field=value"),
    ],
)
def test_a_wrong_override_names_field_and_cure(
    write, override, field, nearest, allowed
):
    with pytest.raises(ConfigError) as caught:
        config_lib.load(write(), [override])
    assert caught.value.field == field
    if nearest:
        assert caught.value.nearest == nearest
        assert f"Did you mean '{nearest}'?" in str(caught.value)
    assert allowed in caught.value.allowed


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("config.sed = 1", "sed", 1),
        ("config.data.alhpa = 0.1  # skewed", "data.alhpa", 0.1),
        ("config.data.update(alhpa=0.1)", "data.alhpa", None),
        ("config['sed'] = 1", "sed", 1),
        ("x = config.data.alhpa", "data.alhpa", None),
        ("config.seed = 'one'", "seed", "one"),
        ("config.local.steps = 1.5", "local.steps", 1.5),
        ("config.local = 3", "local", 3),
        ("config.seed = True", "seed", True),
        ("config.unlock()\nconfig.sed = 1", "sed", 1),
        ("config.unlock()\ndel config.seed", "seed", None),
    ],
)
def test_a_wrong_line_in_a_file_names_the_field(write, line, field, value):
    with pytest.raises(ConfigError) as caught:
        config_lib.load(write(line))
    assert caught.value.field == field
    if value is not None:
        assert caught.value.value == value


def test_a_typo_is_told_the_fields_beside_it_and_sections_without_theirs(write):
    with pytest.raises(ConfigError) as caught:
        config_lib.load(write(), ["federated.rouds=3"])
    allowed = caught.value.allowed.removeprefix("the fields and sections ").split(", ")
    assert {"federated.rounds", "federated.fedgen"} <= set(allowed)
    assert not any(name.startswith("federated.fedgen.") for name in allowed)
    assert len(allowed) == len(set(allowed)) < 30


def test_a_typo_in_a_file_gives_the_nearest_field(write):
    with pytest.raises(ConfigError, match=r"Did you mean 'local\.learning_rate'"):
        config_lib.load(write("config.local.lerning_rate = 0.1"))


def test_a_mistake_in_a_file_s_own_python_is_not_blamed_on_the_schema(write):
    with pytest.raises(AttributeError, match="no attribute 'foo'"):
        config_lib.load(write("''.foo"))
    with pytest.raises(KeyError, match="absent"):
        config_lib.load(write("{}['absent']"))


IMPOSSIBLE = [
    ("experiment", "a/b"),
    ("seed", -1),
    ("seed", 2**32),
    ("data.alpha", 0.0),
    ("data.alpha", -1.0),
    ("data.alpha", math.nan),
    ("data.alpha", math.inf),
    ("data.public_fraction", -0.1),
    ("data.public_fraction", 1.1),
    ("data.validation_fraction", 1.5),
    ("data.public_missing_classes", (-1,)),
    ("data.public_missing_classes", (1, 1)),
    ("data.public_missing_classes", ("a",)),
    ("topology.num_edges", 0),
    ("local.batch_size", 0),
    ("local.learning_rate", 0.0),
    ("up_end_edge.temperature", 0.0),
    ("down_cloud_edge.weights.adversarial", -0.1),
    ("down_cloud_edge.bank_size", 127),
    ("local.replay_size", 0),
    ("down_cloud_edge.adversarial_mask", "both"),
    ("down_cloud_end.weights.one_hot", -0.1),
    ("up_end_cloud.inner_steps", 0),
    ("up_end_cloud.batchnorm_momentum", 0.0),
    ("up_end_cloud.batchnorm_momentum", 1.1),
    ("down_edge_end.shift", -1),
    ("pretrain.shift", -1),
    ("local.shift", -1),
    ("up_end_cloud.teacher_weights", "by_label"),
    ("up_end_cloud.bank_size", 127),
    ("protocol.cycles", 0),
    ("protocol.route", ("cloud>cloud",)),
    ("protocol.route", ("cloud>edge", "cloud>edge")),
    ("protocol.route", ([],)),
    ("protocol.baselines", ("kd_cifar10",)),
    ("mesh.backend", "vmp"),
    ("energy.end_contracted_share", 1.1),
    ("run.workdir", ""),
]


@pytest.mark.parametrize(("field", "value"), IMPOSSIBLE)
def test_an_impossible_value_is_refused(field, value):
    config = config_lib.default()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ConfigError) as caught:
        config_lib.check(config)
    assert caught.value.field == field
    assert f"{field} = {value!r}" in str(caught.value)
    assert caught.value.allowed in str(caught.value)


def test_registries_of_higher_layers_are_checked_with_the_nearest_name():
    choices = {"data.name": ("mnist", "fake"), "nets.cloud": ("cnn_large",)}
    config = config_lib.default()
    config_lib.check(config, choices)
    config.data.name = "mnits"
    with pytest.raises(ConfigError, match="Did you mean 'mnist'"):
        config_lib.check(config, choices)
    config_lib.check(config)


@pytest.mark.parametrize(
    ("body", "cure"),
    [
        (None, "Did you mean"),
        ("x = 1", "defines get_config"),
        ("def get_config(arg=''):\n    return {}", "made by default"),
        ("x = 1\ndef get_config(arg='')", "line 2 of .*relay.py is not: expected ':'"),
    ],
)
def test_a_file_that_gives_no_config_is_refused(tmp_path, body, cure):
    path = tmp_path / "relay.py"
    path.write_text(body or "")
    with pytest.raises(ConfigError, match=cure):
        config_lib.load(str(path if body else tmp_path / "relai.py"))


def test_an_unknown_argument_is_refused_with_the_nearest(write):
    with pytest.raises(ConfigError, match="Did you mean 'smoke'"):
        config_lib.load(write() + ":smok")


def test_smoke_shrinks_every_budget_and_stays_valid(write):
    config = config_lib.load(write() + ":smoke")
    assert config.experiment == "relay_cycle_smoke"
    assert config.data.name == "fake"
    for stage in ("pretrain", "local", *HOPS):
        assert (config[stage].rounds, config[stage].steps) == (2, 2)
    for hop in HOPS:
        assert config[hop].student_steps == 1
        assert config[hop].bank_size == 32


def test_smoke_keeps_what_makes_the_experiment(write):
    body = "config.topology.num_edges = 1\nconfig.data.public_missing_classes = (8,)"
    config = config_lib.load(write(body) + ":smoke")
    assert config.topology.num_edges == 1
    assert config.data.public_missing_classes == (8,)


def test_json_round_trip_keeps_every_value_and_type():
    config = config_lib.default()
    config.data.public_missing_classes = (8, 9)
    text = json.dumps(config_lib.to_dict(config))
    again = config_lib.from_dict(json.loads(text))
    assert again.to_dict() == config.to_dict()
    assert again.is_locked


def test_from_dict_refuses_what_the_schema_lacks():
    with pytest.raises(ConfigError, match=r"Did you mean 'data\.alpha'"):
        config_lib.from_dict({"data": {"alhpa": 0.1}})


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_validation_fraction_is_neither_none_nor_all(value):
    assert not RULES["data.validation_fraction"].predicate(value)
