"""What padding costs where devices hold unequal numbers of images."""

from dataclasses import replace

import jax
import pytest

from ecogen_jax.config_presets import federated
from ecogen_jax.energy import meter
from ecogen_jax.relay.federated import streaming
from ecogen_jax.run.build import outline


def build(kind, alpha, devices):
    config = federated("padding", "fedavg")
    config.data.update(partition=kind, alpha=alpha, public_fraction=0.0)
    config.topology.update(num_edges=2, devices_per_edge=devices // 2)
    config.federated.active = 10
    config.federated.batch_size = min(
        32, 8000 // devices
    )  # what each device has at least
    return outline(config)


@pytest.mark.parametrize(
    ("kind", "alpha", "devices"),
    [("dirichlet", 0.1, 20), ("dirichlet", 1.0, 1000), ("quantity", 1.0, 20)],
)
def test_padding_adds_next_to_nothing_to_the_operations_of_a_round(
    kind, alpha, devices
):
    experiment = build(kind, alpha, devices)
    stage, key = experiment.plan[-1].stage, jax.random.key(0)
    state, _ = stage.begin(experiment.parties, key)
    cohort = streaming.handed_out(state, stage.together.feed(0))
    data, mean = cohort.members.data, int(cohort.members.data.size.mean())
    assert data.labels.shape[1] > 1.2 * mean  # or there is hardly any

    def flops(length):
        cut = replace(
            data, images=data.images[:, :length], labels=data.labels[:, :length]
        )
        members = replace(cohort.members, data=cut)
        given = streaming.core(state), replace(cohort, members=members)
        return meter.cost(stage.one, *given, key).flops

    assert flops(data.labels.shape[1]) < 1.01 * flops(mean)
