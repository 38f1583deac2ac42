"""Hops of tiny dense nets on 8x8 images, for the tests of single distillers."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ecogen_jax.nets.functional import Net, Output, Variables
from ecogen_jax.relay.augmentation import NONE
from ecogen_jax.relay.distillers import DISTILLERS
from ecogen_jax.relay.distillers.base import Generation, Hop, Study, Weights
from ecogen_jax.relay.ensemble import Teachers

SHAPE, CLASSES, LATENT, BATCH, BANK = (8, 8, 1), 4, 3, 16, 40
SIDE = SHAPE[0]


def classifier(channels: int, *, norm: bool = False) -> Net:
    """One stage of maps `[batch, 8, 8, channels]`, then a linear layer.

    Args:
      channels: of the maps.
      norm: whether BatchNorm comes before the linear layer.
    """
    features = SIDE * SIDE * channels

    def init(key):
        first, second = jax.random.split(key)
        params = {
            "first": jax.random.normal(first, (SHAPE[2], channels)),
            "second": jax.random.normal(second, (features, CLASSES)) / SIDE,
        }
        stats = {"mean": jnp.zeros(features), "var": jnp.ones(features)}
        return Variables(params, {"norm": stats} if norm else {})

    def apply(variables, *inputs, train):
        (images,) = inputs
        maps = jax.nn.relu((2 * images - 1) @ variables.params["first"])
        flat = maps.reshape(images.shape[0], features)
        stats, moments = variables.stats, {}
        if norm:
            moments = {"norm": {"mean": jnp.mean(flat, 0), "var": jnp.var(flat, 0)}}
            used = (moments if train else stats)["norm"]
            scale = jax.lax.rsqrt(used["var"] + 1e-1)
            x = (flat - used["mean"][None]) * scale[None]
            if train:
                stats = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, stats, moments)
        else:
            x = flat
        logits = x @ variables.params["second"]
        return Output(logits, stats, moments, (maps, flat))

    return Net(init, apply)


def generator() -> Net:
    """One picture for each label, and noise."""
    pixels = SIDE * SIDE

    def init(key):
        label, noise = jax.random.split(key)
        params = {
            "label": jax.random.normal(label, (CLASSES, pixels)),
            "noise": jax.random.normal(noise, (LATENT, pixels)),
        }
        return Variables(params, {})

    def apply(variables, *inputs, train):
        latent, labels = inputs
        x = latent @ variables.params["noise"] + variables.params["label"][labels]
        return Output(jax.nn.sigmoid(x).reshape(-1, *SHAPE), {}, {}, ())

    return Net(init, apply)


STUDENT, TEACHER, GENERATOR = classifier(3), classifier(5), generator()


def settings(
    weights: Weights,
    *,
    steps: int = 1,
    total_steps: int = 400,
    keep_statistics: bool = False,
    **changes,
) -> dict:
    """The `generation` and `study` of a hop; `changes` are of the former."""
    sizes: dict[str, Any] = {
        "shape": SHAPE,
        "num_classes": CLASSES,
        "latent_size": LATENT,
        "batch_size": BATCH,
        "bank_size": BANK,
        "learning_rate": 0.02,
        "weights": weights,
        "adversarial_mask": "none",
        "inner_steps": 1,
        "batchnorm_momentum": 1.0,
        "augmentation": NONE,
    }
    return {
        "generation": Generation(**(sizes | changes)),
        "study": Study(steps, total_steps, 0.01, 1.0, keep_statistics),
    }


def hop(weights: Weights, *, student=STUDENT, teacher=TEACHER, **changes) -> Hop:
    """A hop's nets and sizes; `changes` are those of `settings`."""
    return Hop(student, (teacher,), GENERATOR, **settings(weights, **changes))


@functools.cache
def build(name, weights, *, student=STUDENT, teacher=TEACHER, **changes):
    """The distiller of that name."""
    given = hop(weights, student=student, teacher=teacher, **changes)
    return DISTILLERS[name].build(given)


def teachers(number: int = 1, *, teacher=TEACHER) -> Teachers:
    """Teachers of one group, with equal weights and sharp logits."""
    group = jax.vmap(teacher.init)(jax.random.split(jax.random.key(7), number))
    params = {**group.params, "second": 4 * group.params["second"]}
    group = Variables(params, group.stats)
    return Teachers((group,), jnp.full((number, CLASSES), 1.0 / number))


def begin(distiller, received, seed=0, *, student=STUDENT):
    """A hop's first state."""
    one, two, three = jax.random.split(jax.random.key(seed), 3)
    return distiller.init(student.init(one), GENERATOR.init(two), received, three)


@functools.partial(jax.jit, static_argnums=0)
def run(step, state, received, step_keys):
    """The state after a step for each key, and the metrics of each."""
    return jax.lax.scan(lambda s, key: step(s, received, key), state, step_keys)


def one_step(distiller, state, received, seed=3):
    """The state after one step, its metrics, and its key."""
    step_keys = jax.random.split(jax.random.key(seed), 1)
    after, metrics = run(distiller.step, state, received, step_keys)
    return (
        after,
        {name: float(value[0]) for name, value in metrics.items()},
        step_keys[0],
    )


def logits(net: Net, variables: Variables, images) -> jax.Array:
    """In inference mode."""
    return net.apply(variables, jnp.asarray(images), train=False).value


def only(received: Teachers) -> Variables:
    """The first teacher."""
    return jax.tree.map(lambda a: a[0], received.groups[0])


def disagreement(state, received, *, student=STUDENT, teacher=TEACHER) -> float:
    """Mean distance of teacher's and student's probabilities on uniform noise."""
    images = jax.random.uniform(jax.random.key(5), (200, *SHAPE))
    one = jax.nn.softmax(logits(teacher, only(received), images))
    other = jax.nn.softmax(logits(student, state.student, images))
    return float(jnp.mean(jnp.sum(jnp.abs(one - other), axis=-1)))
