"""A server that distils hears a faulty device as if it had not been sampled."""

import jax
import numpy as np
import pytest

from ecogen_jax.relay.federated.schedule import NAN, OK
from tests.test_federated_server import NAMES, Run, cohort, run

HEALTHY = np.array([0, 2])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_round_with_a_faulty_device_is_that_of_the_healthy_ones_alone(name):
    three, two = run(name), Run(name, active=len(HEALTHY))
    key, everybody = jax.random.key(1), cohort(0)
    alone = jax.tree.map(lambda leaf: leaf[HEALTHY], everybody)
    state, metrics, _ = three.round(three.first, cohort(0, (OK, NAN, OK)), key)
    wanted, others, _ = two.round(two.first, alone, key)
    assert jax.tree.structure(state.server) == jax.tree.structure(wanted.server)
    # One program has a teacher more, of weight 0, and so other roundings.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        (state.server, metrics["server_distillation"]),
        (wanted.server, others["server_distillation"]),
    )
