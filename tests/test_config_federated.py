"""What a federation's config is refused for: field, value and remedy are named."""

import pytest

from ecogen_jax import config as configs
from tests.toy_federation import config


@pytest.mark.parametrize(
    ("name", "changes", "field", "remedy"),
    [
        ("fedavg", {"active": 7}, "federated.active", "number of devices, 6"),
        (
            "fedavg",
            {"faults__drop": 0.7, "faults__nan": 0.4},
            "federated.faults",
            "sum",
        ),
        ("fedgen", {"privacy__clip": 1.0}, "federated.privacy.clip", "0 in fedgen"),
        (
            "fedavg",
            {"privacy__clip": 1.0, "aggregator": "median"},
            "federated.aggregator",
            "'mean' with privacy",
        ),
        (
            "fedavg",
            {"privacy__clip": 1.0, "statistics": "own"},
            "federated.statistics",
            "'local' with privacy",
        ),
        ("feddf", {"statistics": "local"}, "federated.statistics", "only in fedavg"),
        ("scaffold", {"momentum": 0.9}, "federated.momentum", "0 in scaffold"),
        (
            "hierarchical",
            {"hierarchical__period": 5},
            "federated.hierarchical.period",
            "federated.rounds at most, 4",
        ),
        ("alone", {"compression": "int8"}, "federated.compression", "'none' in alone"),
        ("feddistill", {"share": "head"}, "federated.share", "'all' in feddistill"),
        ("alone", {"faults__stale": 0.1}, "federated.faults", "0 for drop, nan"),
        (
            "fedavg",
            {"privacy__clip": 1.0, "privacy__noise_multiplier": 1e-4},
            "federated.privacy.noise_multiplier",
            "0.001 or more",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(name, changes, field, remedy):
    with pytest.raises(configs.ConfigError, match=remedy) as caught:
        config(name, **changes)
    assert caught.value.field == field
    assert f"{field} = {caught.value.value!r} is refused" in str(caught.value)


@pytest.mark.parametrize(
    ("nets", "field", "remedy"),
    [
        ({"cloud": "lenet5"}, "nets.cloud", "'mlp' in fedavg"),
        ({"end": "mlp,lenet5"}, "nets.end", "one net in fedavg"),
    ],
)
def test_nets_of_different_kinds_are_refused(nets, field, remedy):
    made = config("fedavg")
    made.nets.update(nets)
    with pytest.raises(configs.ConfigError, match=remedy) as caught:
        configs.check(made)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("file", "override", "field"),
    [
        ("fedftg", "federated.share=head", "federated.share"),
        ("feddf", "data.public_fraction=0.0", "data.public_fraction"),
        ("fedavg", "data.public_fraction=1.0", "data.public_fraction"),
        ("dense", "up_end_cloud.distiller=relay", "up_end_cloud.distiller"),
    ],
)
def test_what_the_server_needs_is_checked(file, override, field):
    with pytest.raises(configs.ConfigError) as refusal:
        configs.load(f"configs/federated/{file}.py", [override])
    assert refusal.value.field == field


@pytest.mark.parametrize("partition", ["dirichlet", "domain"])
def test_devices_need_private_images_in_every_partition(partition):
    made = config("fedavg")
    made.data.update(public_fraction=1.0, partition=partition)
    made.data.domains = (made.data.name, "usps") if partition == "domain" else ()
    with pytest.raises(configs.ConfigError) as refusal:
        configs.check(made)
    assert refusal.value.field == "data.public_fraction"
