"""Gradient inversion of the devices' updates, in the first round and in a late one.

Victims are devices with 1 and with 8 images, and come in pairs with the same labels.
The images found for one of a pair are also compared with the images of the other: this
is the chance level, for an attacker who knows the labels but has another update.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ecogen_jax import keys
from ecogen_jax.nets.classifier import to_unit
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.attacks import intervals, inversion
from ecogen_jax.relay.attacks.inversion import Search, Training
from ecogen_jax.relay.federated.engine import Federation
from ecogen_jax.run.attacks.overhear import Finished, Heard, Images, reference
from ecogen_jax.run.attacks.protection import Protection
from ecogen_jax.types import Key, PyTree

BATCHES = (1, 8)
"""Images of a device whose update is inverted."""

LINEAR_FIRST = "mlp"
"""The classifier whose first layer takes pixels and is linear: `dense1`."""


class Attack(NamedTuple):
    """One way to invert the updates of devices that do a number of steps.

    Attributes:
      name: for tables.
      train: `train(before, images, labels, rate) -> update`, of the device.
      find: `find(before, update, like, labels, rate, key) -> images`.
    """

    name: str
    train: Callable[..., PyTree]
    find: Callable[..., jax.Array]


class Victims(NamedTuple):
    """A device with a few images, and one with others of the same labels.

    Attributes:
      number: of this pair of victims. It chooses the start images and the noise of
        protection: a device can be in several pairs, which have to be independent.
      device: whose net is trained.
      images: of both.
    """

    number: int
    device: int
    images: Images


def rows(
    run: Finished,
    heard: Sequence[Heard],
    protections: Sequence[Protection],
    *,
    victims: int,
    iterations: int,
) -> Iterator[dict[str, Any]]:
    """A row of the table for each attack, see `attacks.attack`."""
    if heard[0].change is None or run.sharing.head_only:
        return  # the eavesdropper knows nothing about the other layers
    cases = itertools.product(sorted({1, run.config.federated.steps}), BATCHES)
    for steps, batch in cases:
        pairs = _victims(heard, batch, victims)
        settings = itertools.product(
            _attacks(run, steps, batch, iterations), (run.first, run.late), protections
        )
        for attack, state, protection in settings if pairs else ():
            found = [_errors(run, state, one, protection, attack) for one in pairs]
            yield {
                "message": "update",
                "attack": attack.name,
                "protection": protection.name,
                "round": int(state.number) + 1,
                "steps": steps,
                "batch": batch,
                "images": 2 * batch * len(pairs),
                **_quality(np.array(found)),
            }


def _victims(heard: Sequence[Heard], batch: int, most: int) -> list[Victims]:
    """The first images of each device, then its next ones, until there are enough."""
    longest = max(len(one.images.labels) for one in heard)
    found = [
        (one.device, Images(*(leaf[at : at + batch] for leaf in one.images)))
        for at in range(0, longest, batch)
        for one in heard
        if at + batch <= len(one.images.labels)
    ]
    return [Victims(number, *pair) for number, pair in enumerate(found[:most])]


def _attacks(run: Finished, steps: int, batch: int, iterations: int) -> list[Attack]:
    net, momentum = run.net, run.config.federated.momentum

    @jax.jit
    def train(
        before: Variables, images: jax.Array, labels: jax.Array, rate: jax.Array
    ) -> PyTree:
        training = Training(steps, rate, momentum)
        return inversion.update(net, before, images, labels, training)

    @jax.jit
    def search(
        before: Variables,
        heard: PyTree,
        like: jax.Array,
        labels: jax.Array,
        rate: jax.Array,
        key: Key,
    ) -> jax.Array:
        training, how = Training(steps, rate, momentum), Search(iterations)
        return inversion.invert(
            net, before, heard, like, labels, key, training=training, search=how
        )

    def solve(
        before: Variables, heard: PyTree, like: jax.Array, *rest: jax.Array
    ) -> jax.Array:
        del before, rest
        pixels = inversion.linear_input(**heard["dense1"])
        return jnp.clip((pixels + 1) / 2, 0.0, 1.0).reshape(like.shape)

    found = [Attack("inversion", train, search)]
    if run.config.nets.end == LINEAR_FIRST and batch == 1:
        found.append(Attack("closed form", train, solve))
    return found


def _errors(
    run: Finished,
    state: Federation,
    victims: Victims,
    protection: Protection,
    attack: Attack,
) -> list[float]:
    """PSNR and error of the images found, on their own and on the other's images."""
    before = reference(run, state, victims.device)
    section, images = run.config.federated, victims.images
    rate = jnp.float32(section.learning_rate * section.decay ** int(state.number))
    labels = jnp.asarray(images.labels)
    truths = [to_unit(jnp.asarray(some)) for some in (images.members, images.others)]
    found = []
    for which, truth in enumerate(truths):
        key = keys.stream(
            run.experiment.key, "attack", victims.device, victims.number, which
        )
        update = attack.train(before, truth, labels, rate)
        heard = protection(update, keys.stream(key, "protection"))
        like = jnp.zeros_like(truth)
        found.append(attack.find(before, heard, like, labels, rate, key))
    own, chance = (
        np.concatenate(
            [
                inversion.errors(np.asarray(one), np.asarray(truth))
                for one, truth in zip(found, order, strict=True)
            ]
        )
        for order in (truths, truths[::-1])
    )
    ratios = [inversion.psnr_db(each) for each in (own, chance)]
    return [float(each.mean()) for each in (*ratios, own, chance)]


def _quality(found: np.ndarray) -> dict[str, float]:
    """Columns of a row, from what `_errors` gives for each pair `[pairs, 4]`.

    The intervals are t-intervals over pairs, see `intervals.of_mean`.
    """
    names = ("psnr_db", "chance_psnr_db", "mse", "chance_mse")
    columns: dict[str, float] = {}
    for name, values in zip(names, found.T, strict=True):
        columns |= intervals.of_mean(values).columns(name)
    gain = intervals.of_mean(found[:, 0] - found[:, 1])
    return columns | gain.columns("gain_db")
