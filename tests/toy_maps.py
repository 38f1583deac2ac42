"""Hops of nets that see a little: 4 x 4 images, one map of 2 x 2 positions."""

from typing import Any

import jax
import jax.numpy as jnp

from ecogen_jax.nets.functional import Net, Output, Variables
from ecogen_jax.relay.augmentation import NONE
from ecogen_jax.relay.distillers.base import Generation, Study, Weights
from ecogen_jax.relay.ensemble import Teachers

SHAPE, CLASSES, LATENT = (4, 4, 1), 3, 2
PIXELS = 16
BATCH, BANK = 6, 16
# Two teachers: the first alone knows class 0, both class 2, and none class 1.
KNOWN = ((1.0, 0.0, 0.3), (0.0, 0.0, 0.7))


def classifier(channels: int, *, batchnorm: bool = True) -> Net:
    """Patches of 2 x 2 pixels, dense, BatchNorm, ReLU, then dense over all positions.

    Args:
      channels: of the map.
      batchnorm: without it the net has no statistics.
    """

    def init(key):
        first, second = jax.random.split(key)
        params = {
            "first": jax.random.normal(first, (4, channels)),
            "second": jax.random.normal(second, (4 * channels, CLASSES)),
            "bias": jnp.zeros(CLASSES),
        }
        stats = {"mean": jnp.zeros(channels), "var": jnp.ones(channels)}
        return Variables(params, {"norm": stats} if batchnorm else {})

    def apply(variables, *inputs, train):
        (images,) = inputs
        x = (2 * images - 1).reshape(-1, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4)
        x = x.reshape(-1, 2, 2, 4) @ variables.params["first"]
        stats, moments = variables.stats, {}
        if batchnorm:
            seen = {"mean": jnp.mean(x, (0, 1, 2)), "var": jnp.var(x, (0, 1, 2))}
            x, stats = _normalised(x, stats["norm"], seen, train)
            moments = {"norm": seen}
        maps = jax.nn.relu(x)
        features = maps.reshape(len(images), -1)
        logits = features @ variables.params["second"]
        logits = logits + variables.params["bias"][None]
        return Output(logits, stats, moments, (maps, features))

    return Net(init, apply)


def _normalised(x, stats, seen, train):
    used = seen if train else stats
    shape = (1, 1, 1, -1)
    x = x - used["mean"].reshape(shape)
    x = x * jax.lax.rsqrt(used["var"] + 1e-3).reshape(shape)
    if train:
        stats = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, stats, seen)
    return x, {"norm": stats}


def generator() -> Net:
    """One picture for each label, and noise."""

    def init(key):
        label, noise = jax.random.split(key)
        params = {
            "label": jax.random.normal(label, (CLASSES, PIXELS)),
            "noise": jax.random.normal(noise, (LATENT, PIXELS)),
        }
        return Variables(params, {})

    def apply(variables, *inputs, train):
        latent, labels = inputs
        code = labels if labels.ndim == 2 else jax.nn.one_hot(labels, CLASSES)
        x = latent @ variables.params["noise"] + code @ variables.params["label"]
        return Output(jax.nn.sigmoid(x).reshape(-1, *SHAPE), {}, {}, ())

    return Net(init, apply)


def sizes(**changes: Any) -> tuple[Generation, Study]:
    """How images are made and how the student is trained.

    Args:
      **changes: of fields of `Generation` and `Study`; `learning_rate` is the
        student's, `generator_learning_rate` the other.
    """
    generation = Generation(
        shape=SHAPE,
        num_classes=CLASSES,
        latent_size=LATENT,
        batch_size=BATCH,
        bank_size=BANK,
        learning_rate=changes.pop("generator_learning_rate", 0.05),
        weights=Weights(one_hot=1.0),
        adversarial_mask="none",
        inner_steps=2,
        batchnorm_momentum=1.0,
        augmentation=NONE,
    )
    study = Study(
        steps=2,
        total_steps=400,
        learning_rate=0.02,
        temperature=2.0,
        keep_statistics=False,
    )
    of_student = {name: changes.pop(name) for name in Study._fields if name in changes}
    return generation._replace(**changes), study._replace(**of_student)


def teachers(*nets: Net, weights: Any = KNOWN) -> Teachers:
    """New teachers: the rows of weights are shared out evenly over the nets."""
    members = len(weights) // len(nets)
    keys = jax.random.split(jax.random.key(7), (len(nets), members))
    groups = tuple(jax.vmap(net.init)(k) for net, k in zip(nets, keys, strict=True))
    return Teachers(groups, jnp.asarray(weights))
