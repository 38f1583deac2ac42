"""Nets of a few numbers, whose size is known by hand and which compile in a moment."""

import jax
import jax.numpy as jnp
import numpy as np

from ecogen_jax.data.partition import Held, hold
from ecogen_jax.nets.functional import Net, Output, Variables
from ecogen_jax.nets.precision import at_precision
from ecogen_jax.relay.learn import Data
from ecogen_jax.relay.parties import Nets

SHAPE, CLASSES, LATENT = (2, 2, 1), 3, 2
PIXELS = 4
HIDDEN = {"cloud": 8, "edge": 6, "end": 5}


def held(data: Data) -> Held:
    """What parties hold, without the padding that it comes with."""
    shape = data.images.shape[2:]
    parts = [
        party * data.labels.shape[1] + np.arange(size)
        for party, size in enumerate(data.size)
    ]
    return hold(data.images.reshape(-1, *shape), data.labels.reshape(-1), parts)


def classifier(hidden: int) -> Net:
    """Dense, BatchNorm, ReLU, dense: `num_floats(hidden)` numbers in all."""

    def init(key):
        first, second = jax.random.split(key)
        params = {
            "first": 0.5 * jax.random.normal(first, (PIXELS, hidden)),
            "second": 0.5 * jax.random.normal(second, (hidden, CLASSES)),
            "bias": jnp.zeros(CLASSES),
        }
        stats = {"norm": {"mean": jnp.zeros(hidden), "var": jnp.ones(hidden)}}
        return Variables(params, stats)

    def apply(variables, *inputs, train):
        (images,) = inputs
        x = (2 * images - 1).reshape(images.shape[0], PIXELS)
        x = x @ variables.params["first"]
        seen = {"mean": jnp.mean(x, 0), "var": jnp.var(x, 0)}
        stats = variables.stats["norm"]
        used = seen if train else stats
        x = (x - used["mean"][None]) * jax.lax.rsqrt(used["var"] + 1e-3)[None]
        features = jax.nn.relu(x)
        logits = features @ variables.params["second"] + variables.params["bias"][None]
        if train:
            stats = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, stats, seen)
        return Output(logits, {"norm": stats}, {"norm": seen}, (features,))

    return Net(init, apply)


def generator() -> Net:
    """One picture for each label, and noise: `GENERATOR_FLOATS` numbers in all."""

    def init(key):
        label, noise = jax.random.split(key)
        params = {
            "label": jax.random.normal(label, (CLASSES, PIXELS)),
            "noise": 0.3 * jax.random.normal(noise, (LATENT, PIXELS)),
        }
        return Variables(params, {})

    def apply(variables, *inputs, train):
        latent, labels = inputs
        x = latent @ variables.params["noise"] + variables.params["label"][labels]
        return Output(jax.nn.sigmoid(x).reshape(-1, *SHAPE), {}, {}, ())

    return Net(init, apply)


def at(precision, product):
    """A function of images and a kernel, as a net at a precision runs it."""

    def apply(variables, *inputs, train):
        (images,) = inputs
        return Output(product(images, variables.params["kernel"]), {}, {}, ())

    def init(key):
        return Variables({}, {})

    net = at_precision(Net(init, apply), precision)

    def call(images, kernel):
        return net.apply(Variables({"kernel": kernel}, {}), images, train=True).value

    return call


GENERATOR_FLOATS = (CLASSES + LATENT) * PIXELS


def num_floats(hidden: int) -> int:
    """Weights, biases, running means and variances of `classifier(hidden)`."""
    return PIXELS * hidden + hidden * CLASSES + CLASSES + 2 * hidden


def nets(*end: int) -> Nets:
    """A different classifier at each tier.

    Args:
      *end: hidden units of each kind of net at the end tier; one kind if none is given.
    """
    return Nets(
        cloud=classifier(HIDDEN["cloud"]),
        edge=classifier(HIDDEN["edge"]),
        end=tuple(map(classifier, end or (HIDDEN["end"],))),
        generator=generator(),
    )
