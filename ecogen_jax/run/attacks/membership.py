"""Membership inference on each type of message.

| message | an image is judged by |
|---|---|
| update | the loss of the updated net, alone or minus that of the broadcast net |
| broadcast | the loss of the net that every device receives |
| logits | the distance of its logits to the device's mean, alone or against all |
| generator | its distance to the generator's outputs |
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ecogen_jax import keys
from ecogen_jax.nets.classifier import to_unit
from ecogen_jax.nets.functional import Variables
from ecogen_jax.nets.latent import latent_generator, num_features
from ecogen_jax.relay.attacks import intervals, membership
from ecogen_jax.relay.attacks.intervals import Scores
from ecogen_jax.relay.federated.feddistill import ByClass
from ecogen_jax.relay.federated.fedgen import Sent
from ecogen_jax.run.attacks.overhear import Finished, Heard, Images, rebuilt
from ecogen_jax.run.attacks.protection import NOTHING, Protection

CHUNK = 250
"""Images in one call of a net."""

MADE = 500
"""Outputs of a generator of each class."""


class Answers(NamedTuple):
    """The output of a net on images: logits, and the inputs of its last layer."""

    logits: np.ndarray
    features: np.ndarray


Ask = Callable[[Variables, np.ndarray], Answers]
Judge = Callable[[Heard, np.ndarray, np.ndarray], np.ndarray]
"""`judge(heard, images, labels)`: a score for each image."""


class Question(NamedTuple):
    """A membership attack on one type of message.

    Attributes:
      message: which.
      attack: its name.
      protection: of the update.
      judge: the attack.
      heard: the devices whose images are attacked.
    """

    message: str
    attack: str
    protection: str
    judge: Judge
    heard: Sequence[Heard]


def rows(
    run: Finished,
    heard: Sequence[Heard],
    protections: Sequence[Protection],
    rng: np.random.Generator,
    *,
    resamples: int,
) -> Iterator[dict[str, Any]]:
    """A row of the table for each attack, see `attacks.attack`."""
    for question in _questions(run, heard, protections):
        scores = [_scores(one, question.judge) for one in question.heard]
        area, positives = intervals.of_devices(scores, rng, resamples=resamples)
        yield {
            "message": question.message,
            "attack": question.attack,
            "protection": question.protection,
            "round": int(run.late.number) + 1,
            "devices": len(scores),
            "images": sum(2 * len(members) for members, _ in scores),
            **area.columns("auc"),
            "chance_auc": 0.5,
            **positives.columns("tpr"),
            "chance_tpr": intervals.FALSE_POSITIVES,
        }


def _scores(heard: Heard, judge: Judge) -> Scores:
    images = heard.images
    both = np.concatenate([images.members, images.others])
    members, others = np.split(judge(heard, both, np.tile(images.labels, 2)), 2)
    return members, others


def _questions(
    run: Finished, heard: Sequence[Heard], protections: Sequence[Protection]
) -> Iterator[Question]:
    """The membership attacks on what the run's protocol sends."""
    ask = _asking(run)

    def low(one: Heard, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return membership.low_loss(ask(rebuilt(run, one), images).logits, labels)

    def lower(one: Heard, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        after, before = ask(rebuilt(run, one), images), ask(one.reference, images)
        return membership.lower_loss(after.logits, before.logits, labels)

    def broadcast(one: Heard, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return membership.low_loss(ask(one.reference, images).logits, labels)

    if heard[0].change is not None:
        for protection in protections:
            sent = _protected(run, heard, protection)
            for name, judge in (("low loss", low), ("lower loss", lower)):
                yield Question("update", name, protection.name, judge, sent)
    if run.method.has_cloud_net:
        yield Question("broadcast", "low loss", NOTHING.name, broadcast, heard)
    if isinstance(heard[0].facts, ByClass):
        yield from _about_logits(heard, ask)
    if isinstance(heard[0].received, Sent):
        yield from _about_generator(run, heard, ask)


def _protected(
    run: Finished, heard: Sequence[Heard], protection: Protection
) -> list[Heard]:
    key = keys.stream(run.experiment.key, "attack/protection")
    return [
        one._replace(change=protection(one.change, keys.stream(key, "of", one.device)))
        for one in heard
    ]


def _about_logits(heard: Sequence[Heard], ask: Ask) -> Iterator[Question]:
    """FedDistill: with a neighbour's net, since the device's net is not sent."""

    def near(one: Heard, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        logits = ask(one.reference, images).logits
        return membership.near_mean(logits, labels, np.asarray(one.facts.logits))

    def nearer(one: Heard, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        logits = ask(one.reference, images).logits
        everybody = np.asarray(one.received.logits)
        return near(one, images, labels) - membership.near_mean(
            logits, labels, everybody
        )

    told = []
    for one in heard:
        counts = np.minimum(one.facts.counts, one.received.counts)
        known = counts[one.images.labels] > 0
        if known.any():
            images = Images(*(leaf[known] for leaf in one.images))
            told.append(one._replace(images=images))
    if told:
        yield Question("logits", "near mean", NOTHING.name, near, told)
        yield Question("logits", "nearer mean", NOTHING.name, nearer, told)


def _about_generator(
    run: Finished, heard: Sequence[Heard], ask: Ask
) -> Iterator[Question]:
    """FedGen: the generator makes features, so the features of images are compared."""
    made = _made(run, heard[0].received.generator)

    def against(attack: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Judge:
        def judge(one: Heard, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
            features = ask(one.reference, images).features
            scores = np.zeros(len(labels))
            for label in np.unique(labels):
                here = labels == label
                scores[here] = attack(features[here], made[label])
            return scores

        return judge

    for name, attack in (
        ("nearest output", membership.near_made),
        ("many outputs", membership.many_made),
    ):
        yield Question("generator", name, NOTHING.name, against(attack), heard)


def _made(run: Finished, variables: Variables) -> np.ndarray:
    """Features made by a generator, `[classes, MADE, features]`."""
    noise_size = run.config.federated[run.config.protocol.name].noise_size
    maker = latent_generator(
        features=num_features(run.net, run.shape),
        num_classes=run.num_classes,
        noise_size=noise_size,
    )
    labels = np.repeat(np.arange(run.num_classes, dtype=np.int32), MADE)
    key = keys.stream(run.experiment.key, "attack/generator")
    noise = jax.random.uniform(key, (len(labels), noise_size))
    made = maker.apply(variables, noise, jnp.asarray(labels), train=False).value
    return np.asarray(made).reshape(run.num_classes, MADE, -1)


def _asking(run: Finished) -> Ask:
    """Runs a net on images in chunks of one size, so one program is compiled."""

    @jax.jit
    def chunk(variables: Variables, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        output = run.net.apply(variables, to_unit(images), train=False)
        return output.value, output.activations[-1]

    def ask(variables: Variables, images: np.ndarray) -> Answers:
        size = len(images)
        padded = np.pad(images, ((0, -size % CHUNK), (0, 0), (0, 0), (0, 0)))
        parts = [
            chunk(variables, padded[at : at + CHUNK]) for at in range(0, size, CHUNK)
        ]
        logits, features = (
            np.concatenate(each)[:size] for each in zip(*parts, strict=True)
        )
        return Answers(logits, features)

    return ask
