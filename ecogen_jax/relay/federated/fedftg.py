"""FedFTG: the averaged net is fine-tuned on generated images that are hard for it.

Devices k send nets and label counts n_k. The server takes steps on labels y from the
devices' label distribution, noise z ~ N(0, 1) and images x = G(z, y):

    w_k(y) = n_k(y) / sum_k n_k(y),                 p(y) = sum_k n_k(y) / n
    G minimises  sum_k mean_i w_k(y_i) [-mean_c |s(x_i) - t_k(x_i)|_c
                                        + a CE(t_k(x_i), y_i)]
                 + b exp(-mean_ij |z_i - z_j|^2 |x_i - x_j|)
    S minimises  mean_i CE(sum_k w_k(y_i) softmax(t_k(x_i)), softmax(s(x_i)))

The first term of G mines hard samples: images on which the averaged net and the devices
differ. Then S takes several steps on the same images. Zhang et al., "Fine-tuning global
model via data-free knowledge distillation for non-IID federated learning", CVPR 2022,
in the form of their code: no gradient of the first term through `t_k`, and distances
that are means over their entries.

Differs from their code:

- One step of the generator for all devices together (theirs: one for each in turn).
- In the second term, each image's own cross-entropy is weighted (theirs: the mean over
  the batch).
- Student: Adam with a cosine schedule that is reset in each round, instead of SGD at
  0.1 on a loss that is also a mean over classes, a tenth of the one above; its
  BatchNorm keeps the statistics of the average, which come from real images.
- Generator: the conditional one of this project, always in training mode, with a
  constant learning rate and an Adam whose moments stay from round to round (theirs is
  new in each).
- Labels are drawn independently (theirs: dealt in proportion over a round's batches).
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import optax

from ecogen_jax import keys
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.ensemble import Teachers
from ecogen_jax.relay.federated.base import Arrived, Method, Metrics, Task
from ecogen_jax.relay.federated.fedavg import Server, averaged, fedavg
from ecogen_jax.relay.federated.fedgen import (
    Learner,
    diversity,
    shared_cross_entropy,
)
from ecogen_jax.relay.federated.received import (
    nets_alone,
    shares,
    teachers,
    telling,
    told,
)
from ecogen_jax.relay.optimizer import adam, descend, stepwise_adam
from ecogen_jax.types import Key, Labels, PyTree

Tuning = tuple[Variables, Learner]
"""The average that is tuned, and the generator."""


def fedftg(task: Task) -> Method:
    """Builds FedFTG; its options are those of the config's section `fedftg`."""
    assert task.maker is not None
    plain, maker = telling(fedavg(task)), task.maker.net
    rate = task.options["generator_learning_rate"]
    tx = stepwise_adam(rate, decay=1.0, every=1, weight_decay=0.0)
    tune = _tuning(task, tx)

    def init(key: Key) -> Server:
        generator = maker.init(keys.stream(key, "generator"))
        extra = Learner(generator, tx.init(generator.params))
        return replace(plain.init(key), extra=extra)

    def merge(server: Server, arrived: Arrived, key: Key) -> tuple[Server, Metrics]:
        counts, nets = told(arrived), nets_alone(arrived)
        after = averaged(task, server, nets, keys.stream(key, "aggregate"))
        weights = shares(arrived, counts)
        devices = teachers(task, server.variables, nets, weights)
        (student, extra), metrics = tune(
            (after.variables, server.extra),
            devices,
            counts.sum(axis=0),
            keys.stream(key, "tuning"),
        )
        return replace(after, variables=student, extra=extra), metrics

    return plain._replace(init=init, merge=merge, pools=0)


def _tuning(
    task: Task, generator_tx: optax.GradientTransformation
) -> Callable[[Tuning, Teachers, jax.Array, Key], tuple[Tuning, Metrics]]:
    """The server's steps of a round, on a histogram of labels `[classes]`."""
    options = task.options
    steps, study_steps = int(options["steps"]), int(options["student_steps"])
    student_tx = adam(options["learning_rate"], total_steps=steps * study_steps)
    improve, study = _improving(task, generator_tx), _study(task, student_tx)

    def tune(
        tuning: Tuning, devices: Teachers, histogram: jax.Array, key: Key
    ) -> tuple[Tuning, Metrics]:
        def step(state: PyTree, key: Key) -> tuple[PyTree, Metrics]:
            student, optimizer, learner = state
            labels, noise = asked(task, histogram, key)
            learner, terms = improve(learner, student, devices, labels, noise)
            images = _made(task, learner.generator, noise, labels)
            target = jnp.sum(
                devices.weights[:, labels, None]
                * jax.nn.softmax(_answers(task, devices, images)),
                axis=0,
            )
            (student, optimizer), loss = jax.lax.scan(
                lambda state, _: study(state, images, target),
                (student, optimizer),
                length=study_steps,
            )
            terms["distillation"] = jnp.mean(loss)
            return (student, optimizer, learner), terms

        student, learner = tuning
        start = (student, student_tx.init(student.params), learner)
        (student, _, learner), metrics = jax.lax.scan(
            step, start, jax.random.split(key, steps)
        )
        return (student, learner), metrics

    return tune


def asked(task: Task, histogram: jax.Array, key: Key) -> tuple[Labels, jax.Array]:
    """The generator's input for a batch: labels from `p(y)` and noise `z`.

    Args:
      task: with the size of the batch and of the noise.
      histogram: how often each class is to be drawn, `[classes]`, of any sum.
      key: for both.

    Returns:
      Labels int32 `[batch]` and noise `[batch, latent_size]`.
    """
    assert task.maker is not None
    size = int(task.options["batch_size"])
    labels = jax.random.categorical(
        keys.stream(key, "labels"), jnp.log(histogram), shape=(size,)
    )
    noise = jax.random.normal(keys.stream(key, "noise"), (size, task.maker.latent_size))
    return labels.astype(jnp.int32), noise


def _made(
    task: Task, generator: Variables, noise: jax.Array, labels: Labels
) -> jax.Array:
    """Images `[batch, height, width, channels]`."""
    assert task.maker is not None
    return task.maker.net.apply(generator, noise, labels, train=True).value


def _answers(task: Task, devices: Teachers, images: jax.Array) -> jax.Array:
    """Logits of every device, `[active, batch, classes]`."""
    (nets,) = devices.groups
    return jax.lax.map(lambda one: task.net.apply(one, images, train=False).value, nets)


def _improving(
    task: Task, tx: optax.GradientTransformation
) -> Callable[..., tuple[Learner, Metrics]]:
    """One step of the generator against the student, with its loss terms."""
    assert task.maker is not None
    maker, options = task.maker.net, task.options

    def objective(
        params: PyTree,
        stats: PyTree,
        student: Variables,
        devices: Teachers,
        labels: Labels,
        noise: jax.Array,
    ) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
        output = maker.apply(Variables(params, stats), noise, labels, train=True)
        guess = task.net.apply(student, output.value, train=False).value
        logits = _answers(task, devices, output.value)
        flat = output.value.reshape(noise.shape[0], -1)
        terms = hard_terms(logits, guess, labels, devices.weights[:, labels])
        terms["diversity"] = diversity(noise, flat)
        loss = (
            terms["adversarial"]
            + options["cross_entropy"] * terms["cross_entropy"]
            + options["diversity"] * terms["diversity"]
        )
        return loss, (output.stats, terms)

    def improve(
        learner: Learner,
        student: Variables,
        devices: Teachers,
        labels: Labels,
        noise: jax.Array,
    ) -> tuple[Learner, Metrics]:
        before = learner.generator
        grads, (stats, terms) = jax.grad(objective, has_aux=True)(
            before.params, before.stats, student, devices, labels, noise
        )
        params, optimizer = descend(tx, grads, learner.optimizer, before.params)
        return Learner(Variables(params, stats), optimizer), terms

    return improve


def hard_terms(
    logits: jax.Array, guess: jax.Array, labels: Labels, weights: jax.Array
) -> Metrics:
    """The first two terms of the generator's loss.

    Args:
      logits: of the devices, `[active, batch, classes]`.
      guess: of the average, `[batch, classes]`.
      labels: int32 `[batch]`.
      weights: of the devices for each image, `[active, batch]`.
    """
    apart = jnp.abs(guess[None] - jax.lax.stop_gradient(logits)).mean(axis=-1)
    return {
        "adversarial": -jnp.mean(jnp.sum(weights * apart, axis=0)),
        "cross_entropy": shared_cross_entropy(logits, labels, weights),
    }


def _study(
    task: Task, tx: optax.GradientTransformation
) -> Callable[[PyTree, jax.Array, jax.Array], tuple[PyTree, jax.Array]]:
    """One step of the student on images with their target probabilities."""

    def objective(
        params: PyTree, stats: PyTree, images: jax.Array, target: jax.Array
    ) -> jax.Array:
        guess = task.net.apply(Variables(params, stats), images, train=False).value
        return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(guess), axis=-1))

    def study(
        state: tuple[Variables, PyTree], images: jax.Array, target: jax.Array
    ) -> tuple[tuple[Variables, PyTree], jax.Array]:
        student, optimizer = state
        loss, grads = jax.value_and_grad(objective)(
            student.params, student.stats, images, target
        )
        params, optimizer = descend(tx, grads, optimizer, student.params)
        return (Variables(params, student.stats), optimizer), loss

    return study
