"""Inversion: the generator and its noise are trained for a single batch.

CMI, Fast, NAYER, DENSE and Co-Boosting share this code. The labels of a batch are
fixed; everything that makes its images, including the noise, is optimised together
(`engine.invert`). The parameters are a dictionary with at least `generator` and the
parameters of the noise.
"""

from collections.abc import Callable
from dataclasses import replace

import jax

from ecogen_jax import keys
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.distillers import engine
from ecogen_jax.relay.distillers.base import Hop, HopState, Made, Metrics
from ecogen_jax.relay.distillers.engine import Objective
from ecogen_jax.relay.ensemble import Teachers
from ecogen_jax.types import Key, PyTree

Terms = Callable[[PyTree, Made, Key], Metrics]
Latent = Callable[[PyTree], jax.Array]


def objective(
    hop: Hop,
    received: Teachers,
    state: HopState,
    labels: jax.Array,
    stats: PyTree,
    *,
    latent: Latent = lambda params: params["latent"],
    terms: Terms | None = None,
    temperature: float = 1.0,
) -> Objective:
    """The objective of one batch, as a function of what makes it and a key.

    Args:
      hop: its nets, sizes and weights.
      received: the teachers.
      state: of the hop.
      labels: the batch's, `[batch]`.
      stats: BatchNorm statistics of the generator.
      latent: from the parameters to the noise, `[batch, latent]`.
      terms: `terms(params, made, key)`, the method's own loss terms; one that `judge`
        knows as well replaces its value.
      temperature: of the adversarial term.
    """

    def loss(params: PyTree, key: Key) -> tuple[jax.Array, Made]:
        variables = Variables(params["generator"], stats)
        output = hop.generator.apply(variables, latent(params), labels, train=True)
        made = engine.judge(
            hop, received, state, output.value, labels, temperature=temperature
        )
        made = made._replace(stats=output.stats)
        if terms is not None:
            made = made._replace(terms=made.terms | terms(params, made, key))
        return engine.weighted(hop.generation.weights, made.terms), made

    return loss


def from_scratch(
    hop: Hop,
    received: Teachers,
    state: HopState,
    key: Key,
    *,
    more: PyTree | None = None,
    terms: Terms | None = None,
    temperature: float = 1.0,
) -> tuple[HopState, Made, PyTree]:
    """Makes a batch with a new generator, and remembers it.

    Args:
      hop: its nets, sizes and weights.
      received: the teachers.
      state: of the hop.
      key: of the step.
      more: parameters that are trained along, by name.
      terms: see `objective`.
      temperature: of the adversarial term.

    Returns:
      The state with the batch in its bank and the trained generator, the batch, and
      all parameters after the last step.
    """
    asked = engine.draw(hop, received, key)
    fresh = hop.generator.init(keys.stream(key, "generator"))
    params, made = engine.invert(
        objective(
            hop,
            received,
            state,
            asked.labels,
            fresh.stats,
            terms=terms,
            temperature=temperature,
        ),
        engine.generator_adam(hop),
        {"generator": fresh.params, "latent": asked.latent, **(more or {})},
        keys.stream(key, "inversion"),
        steps=hop.generation.inner_steps,
    )
    state = replace(
        engine.remember(hop, state, received, made, key),
        generator=Variables(params["generator"], made.stats),
    )
    return state, made, params
