"""Clipping and noise by measurement; epsilon against closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ecogen_jax.relay.federated import privacy

KEY = jax.random.key(0)


def draw(scale=1.0):
    rng = np.random.default_rng(0)
    return {
        "kernel": jnp.asarray(scale * rng.normal(size=(20, 30)), jnp.float32),
        "bias": jnp.asarray(scale * rng.normal(size=(30,)), jnp.float32),
    }


def norm(update):
    return float(np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(update))))


@pytest.mark.parametrize("scale", [0.1, 3.0, 1e8])
def test_clipping_bounds_the_norm_of_all_leaves_together(scale):
    update = draw(scale)
    found = jax.jit(lambda update: privacy.clip(update, 0.7))(update)
    assert norm(found) == pytest.approx(0.7, rel=1e-5)
    # The direction stays: each leaf is scaled by the same factor.
    for name in update:
        np.testing.assert_allclose(
            found[name], update[name] * (0.7 / norm(update)), rtol=1e-4
        )


@pytest.mark.parametrize("scale", [0.0, 1e-3])
def test_a_small_update_is_left_exactly_as_it_is(scale):
    found = privacy.clip(draw(scale), 0.7)
    for name, leaf in draw(scale).items():
        assert np.array_equal(found[name], leaf)


def add_noise(update, key=KEY, **changes):
    arguments = {"max_norm": 0.5, "noise_multiplier": 1.2, "clients": 8}
    return privacy.noise(key, update, **{**arguments, **changes})


def test_noise_has_the_deviation_that_the_accountant_assumes():
    zeros = {"a": jnp.zeros((100, 100)), "b": jnp.zeros(10_000)}
    found = add_noise(zeros)
    values = np.concatenate([np.ravel(leaf) for leaf in found.values()])
    deviation = 1.2 * 0.5 / 8
    # Five standard errors of the deviation and of the mean of 20,000 values.
    assert values.std() == pytest.approx(deviation, rel=5 / math.sqrt(40_000))
    assert abs(values.mean()) < 5 * deviation / math.sqrt(20_000)
    assert stats.kstest(values / deviation, "norm").pvalue > 1e-4


def test_noise_is_independent_between_leaves_and_rounds_and_added_to_the_mean():
    zeros = {"a": jnp.zeros(5000), "b": jnp.zeros(5000)}
    first, second = add_noise(zeros), add_noise(zeros, jax.random.key(1))
    for one, other in ((first["a"], first["b"]), (first["a"], second["a"])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / math.sqrt(5000)
    ones = jax.tree.map(jnp.ones_like, zeros)
    np.testing.assert_allclose(add_noise(ones)["a"], 1 + first["a"], rtol=1e-6)


def test_no_multiplier_is_no_noise():
    found = add_noise(draw(), noise_multiplier=0.0)
    assert np.array_equal(found["kernel"], draw()["kernel"])


def epsilon(**changes):
    arguments = {"noise_multiplier": 2.0, "sampling_rate": 0.5, "rounds": 20}
    return privacy.epsilon(**{**arguments, "delta": 1e-5, **changes})


@pytest.mark.parametrize(("multiplier", "rounds"), [(0.4, 3), (4.0, 16), (20.0, 200)])
def test_epsilon_of_the_plain_gaussian_is_the_analytic_one(multiplier, rounds):
    """Everybody takes part: rounds compose to one Gaussian of `mu = sqrt(T) / z`.

    delta = Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu): Balle and Wang, "Improving
    the Gaussian mechanism for differential privacy", ICML 2018, theorem 8.
    """
    found = epsilon(noise_multiplier=multiplier, sampling_rate=1.0, rounds=rounds)
    mu = math.sqrt(rounds) / multiplier

    def delta(eps):
        log_second = eps + stats.norm.logcdf(-mu / 2 - eps / mu)
        return stats.norm.cdf(mu / 2 - eps / mu) - math.exp(log_second)

    assert delta(found * 1.002) < 1e-5
    assert delta(found * 0.998) > 1e-5


@pytest.mark.parametrize(("multiplier", "rate"), [(0.6, 0.1), (1.0, 0.5), (2.0, 0.9)])
def test_epsilon_of_one_sampled_round_is_the_exact_one(multiplier, rate):
    """One client more: `(1 - q) N(0, z^2) + q N(1, z^2)` against `N(0, z^2)`."""
    found = epsilon(noise_multiplier=multiplier, sampling_rate=rate, rounds=1)
    without, alone = stats.norm(0, multiplier), stats.norm(1, multiplier)

    def delta(eps):
        # The densities' ratio passes e^eps at x, below which the others win.
        ratio = (math.exp(eps) - 1 + rate) / rate
        x = multiplier**2 * math.log(ratio) + 0.5
        with_ = (1 - rate) * without.sf(x) + rate * alone.sf(x)
        return with_ - math.exp(eps) * without.sf(x)

    assert delta(found * 1.002) < 1e-5
    assert delta(found * 0.998) > 1e-5


def of_fixed_size(**changes):
    arguments = {"noise_multiplier": 2.0, "active": 5, "clients": 10, "rounds": 20}
    return privacy.epsilon_of_fixed_size(**{**arguments, "delta": 1e-5, **changes})


def test_sampling_never_costs_more_than_taking_all():
    everybody = of_fixed_size(active=10)
    losses = [of_fixed_size(active=active) for active in (1, 5, 9)]
    assert losses == sorted(losses)
    assert losses[0] < losses[-1] <= everybody


@pytest.mark.parametrize(("multiplier", "active"), [(1.0, 5), (1.0, 1), (3.0, 5)])
def test_a_client_that_is_another_one_is_hidden_by_the_bound_and_not_by_epsilon(
    multiplier, active
):
    """One draw of `q = m / n`, all else 0: `(1 - q) N(0, z^2) + q N(1 or -1, z^2)`."""
    rate, points = active / 10, np.linspace(-40, 40, 800_001)

    def mixture(at):
        still, moved = (stats.norm(c, multiplier).pdf(points) for c in (0.0, at))
        return (1 - rate) * still + rate * moved

    def delta(eps):
        gap = np.maximum(mixture(1.0) - math.exp(eps) * mixture(-1.0), 0.0)
        return np.trapezoid(gap, points)

    one = {"noise_multiplier": multiplier, "rounds": 1}
    assert delta(of_fixed_size(active=active, **one)) < 1e-5
    assert delta(epsilon(sampling_rate=rate, **one)) > 1e-5


def test_the_bound_of_all_clients_is_near_the_plain_gaussian_of_twice_the_move():
    exact = epsilon(noise_multiplier=1.0, sampling_rate=1.0)
    assert exact < of_fixed_size(noise_multiplier=2.0, active=10) < 1.1 * exact


def test_epsilon_falls_with_noise_and_rises_with_rounds_sampling_and_certainty():
    middle = epsilon()
    assert epsilon(noise_multiplier=3.0) < middle < epsilon(noise_multiplier=1.0)
    assert epsilon(rounds=10) < middle < epsilon(rounds=40)
    assert epsilon(sampling_rate=0.2) < middle < epsilon(sampling_rate=0.8)
    assert epsilon(delta=1e-3) < middle < epsilon(delta=1e-7)


def test_nothing_sent_is_private_and_no_noise_is_not():
    assert epsilon(rounds=0) == of_fixed_size(rounds=0) == 0.0
    assert epsilon(noise_multiplier=0.0) == math.inf
    assert of_fixed_size(noise_multiplier=0.0) == math.inf
    assert 1e7 < of_fixed_size(noise_multiplier=1e-3) < math.inf
    # Next to no noise is counted in a moment, on a coarser grid.
    assert 1e4 < epsilon(noise_multiplier=0.05, rounds=200) < 1e5
    # And so is the least that a config may have.
    assert 1e7 < epsilon(noise_multiplier=1e-3, rounds=200) < math.inf


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("noise_multiplier", -1.0),
        ("sampling_rate", 0.0),
        ("sampling_rate", 1.5),
        ("rounds", -1),
        ("delta", 0.0),
        ("delta", 1.0),
    ],
)
def test_errors_name_the_field_and_its_value(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}: allowed is"):
        epsilon(**{field: value})
