"""A robust aggregator keeps a federation of which some devices flip their labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.nets.classifier import to_unit
from ecogen_jax.relay.learn import Data
from tests.toy_federation import CLASSES, DEVICES, SHAPE, net, toy

EVERYBODY, ROUNDS = tuple(range(DEVICES)), 15
MANY, FEW = 64, 10
"""Images of the device that flips its labels, and of each other one.

The mean counts images, so it is led by that device: it has 56 % of them. Where all have
as many, a fifth of wrong labels in each class leaves the likeliest one what it was.
"""
CENTRES = np.array([[200, 60, 60, 60], [60, 200, 60, 60], [60, 60, 200, 60]])


def drawn(rng, *shape):
    """Images of three classes that a small net tells apart, and their labels."""
    labels = rng.integers(0, CLASSES, shape).astype(np.int32)
    pixels = np.clip(CENTRES[labels] + rng.normal(0, 40, (*shape, 4)), 0, 255)
    return pixels.astype(np.uint8).reshape(*shape, *SHAPE), labels


def accuracy(aggregator, *, flip, seed):
    """Accuracy of the cloud after some rounds, with images of a seed.

    Args:
      aggregator: of the updates.
      flip: share of the devices that flip their labels.
      seed: of the images.
    """
    played = toy(
        "fedavg",
        active=EVERYBODY,
        aggregator=aggregator,
        rounds=ROUNDS,
        steps=4,
        learning_rate=0.5,
        decay=1.0,
        faults__flip=flip,
    )
    flips = played.settings.federated.plan.flips
    assert flips.sum() == round(flip * DEVICES)
    rng, sizes = np.random.default_rng(seed), np.where(flips, MANY, FEW)
    data = Data(*drawn(rng, DEVICES, MANY), sizes.astype(np.int32))
    devices = played.on(data, EVERYBODY)
    state = devices.play(ROUNDS)[0][-1]
    cloud = jax.tree.map(lambda leaf: leaf[0], devices.stage.trained(state))
    images, labels = drawn(rng, 300)
    answers = net().apply(cloud, to_unit(jnp.asarray(images)), train=False).value
    return np.mean(np.argmax(answers, axis=1) == labels)


@pytest.mark.parametrize("seed", range(3))
def test_flipped_labels_win_over_the_mean_and_not_over_robust_aggregators(seed):
    assert accuracy("mean", flip=0.0, seed=seed) > 0.9
    fooled = accuracy("mean", flip=0.2, seed=seed)
    for robust in ("median", "trimmed_mean"):
        kept = accuracy(robust, flip=0.2, seed=seed)
        assert kept > 0.9
        assert kept > fooled + 0.2
