"""What the methods that train each batch to its end have in common."""

import jax
import numpy as np
import pytest

from tests import toy_inversion as toy


def test_more_inner_steps_make_a_batch_better():
    losses = {}
    for inner_steps in (1, 30):
        given = toy.hop(inner_steps=inner_steps)
        _, metrics = toy.run(toy.build("nayer", given), toy.teachers(), number=1)
        losses[inner_steps] = metrics["cross_entropy"]
    assert losses[30] < 0.8 * losses[1]


@pytest.mark.parametrize("name", ["cmi", "co_boosting", "dense"])
def test_a_batch_owes_nothing_to_the_generator_before(name):
    distiller, received = toy.build(name, toy.hop()), toy.teachers()
    state, other = (toy.begin(distiller, received, seed) for seed in (0, 9))
    elsewhere = state.replace(generator=other.generator)
    step = toy.jitted(distiller)
    one, two = (step(s, received, jax.random.key(1))[0] for s in (state, elsewhere))
    np.testing.assert_array_equal(one.bank.images, two.bank.images)
    jax.tree.map(np.testing.assert_array_equal, one.generator, two.generator)
