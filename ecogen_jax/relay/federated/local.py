"""Local training: the SGD steps that a device does in a round."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ecogen_jax import keys, losses
from ecogen_jax.nets.classifier import to_unit
from ecogen_jax.nets.functional import Net, Output, Variables
from ecogen_jax.relay.federated.base import Local, Member, Metrics
from ecogen_jax.relay.federated.trees import chosen
from ecogen_jax.relay.optimizer import sgd, sgd_step
from ecogen_jax.types import Key, PyTree

FEW_STEPS = 8
"""So many local steps at most are compiled one by one. Five or six of logistic
regression, an MLP or a small CNN took a CPU 3 to 12 % less time than as a loop, and no
longer to compile; 20 of FedGen's net took 14 % more, and twice as long to compile."""


class Loss(NamedTuple):
    """The loss of a step.

    Attributes:
      terms: by name; their sum is minimised.
      seen: values summed over the steps and returned, such as logits by class.
    """

    terms: Metrics
    seen: PyTree = ()


LossFunction = Callable[[PyTree, Output, jax.Array, PyTree, PyTree], Loss]
"""`loss(params, output, labels, guide, ready)`: the net that the terms are
differentiated by, its output on a batch in training mode, labels int32 `[batch]`, what
the method needs besides, and what was computed ahead for the step."""

Ahead = Callable[[jax.Array, PyTree, Key], PyTree]
"""`ahead(labels, guide, key) -> ready`: what the loss of a step needs that does not
depend on the net, such as random draws. All steps are computed together: on a CPU,
drawing a few numbers takes as long as a small layer. This takes the memory of all steps
for every device that is trained at the same time, see `mesh.chunk` of the config."""

Correct = Callable[[PyTree, PyTree, PyTree], PyTree]
"""`correct(grads, params, guide) -> grads`, before the SGD step."""


class LocalResult(NamedTuple):
    """The result of local training.

    Attributes:
      variables: of the net after the last step.
      seen: the sum of `Loss.seen` over the steps done.
      steps: float32 scalar, how many steps were done.
      metrics: the terms of the loss, `[steps]` each.
    """

    variables: Variables
    seen: PyTree
    steps: jax.Array
    metrics: Metrics


LocalTraining = Callable[[Variables, Member, PyTree, Key], LocalResult]


def cross_entropy(
    params: PyTree, output: Output, labels: jax.Array, guide: PyTree, ready: PyTree
) -> Loss:
    """The loss of local training without any guide."""
    del params, guide, ready
    return Loss({"cross_entropy": losses.cross_entropy(output.value, labels)})


def local_training(
    net: Net,
    local: Local,
    *,
    loss: LossFunction = cross_entropy,
    ahead: Ahead = lambda labels, guide, key: (),
    correct: Correct = lambda grads, params, guide: grads,
) -> LocalTraining:
    """Builds the local training of one device.

    A step of round `r` draws a batch from the device's images and changes the net by
    `-learning_rate decay^r` times the momentum of the gradient. A straggler does its
    share of the steps, rounded, and at least one.

    Args:
      net: of the device.
      local: its size.
      loss: of a batch.
      ahead: see `Ahead`.
      correct: changes the gradient of a step.

    Returns:
      `train(variables, member, guide, key) -> LocalResult`, of a member that is
      `ordered`.
    """
    tx = sgd(local.momentum)
    step = _sgd_step(net, tx, loss, correct)

    def train(
        variables: Variables, member: Member, guide: PyTree, key: Key
    ) -> LocalResult:
        rate = local.learning_rate * local.decay ** member.number.astype(jnp.float32)
        num_steps = jnp.maximum(jnp.round(member.share * local.steps), 1.0)

        def one(
            state: tuple[Variables, PyTree], at: _Step
        ) -> tuple[tuple[Variables, PyTree], Loss]:
            batch = (member.data.images[at.picked], at.labels)
            after, found = step(state, batch, guide, rate, at.ready)
            if local.stragglers:
                done = at.number.astype(jnp.float32) < num_steps
                after = chosen(done, after, state)
                found = _if_done(done, found, local.steps / num_steps)
            return after, found

        state = (variables, tx.init(variables.params))
        (variables, _), found = jax.lax.scan(
            one,
            state,
            _every_step(local, ahead, member, guide, key),
            unroll=unrolled(local.steps),
        )
        seen = jax.tree.map(lambda leaf: leaf.sum(axis=0), found.seen)
        return LocalResult(variables, seen, num_steps, found.terms)

    return train


def _if_done(done: jax.Array, found: Loss, scale: jax.Array) -> Loss:
    """What a step of a straggler tells: nothing, if it was not done.

    With `scale`, the number of steps over that of the steps done, the mean of the terms
    over all steps is that over those done.
    """
    terms = {
        name: jnp.where(done, scale * term, 0.0) for name, term in found.terms.items()
    }
    nothing = jax.tree.map(jnp.zeros_like, found.seen)
    return Loss(terms, chosen(done, found.seen, nothing))


def unrolled(steps: int) -> int:
    """How many steps of a device are unrolled in the program, see `FEW_STEPS`."""
    return steps if steps <= FEW_STEPS else 1


def _sgd_step(
    net: Net, tx: optax.GradientTransformation, loss: LossFunction, correct: Correct
) -> Callable[..., tuple[tuple[Variables, PyTree], Loss]]:
    """`step((variables, momentum), batch, guide, rate, ready) -> (state, loss)`."""

    def objective(
        params: PyTree, stats: PyTree, batch: PyTree, guide: PyTree, ready: PyTree
    ) -> tuple[jax.Array, tuple[PyTree, Loss]]:
        images, labels = batch
        output = net.apply(Variables(params, stats), to_unit(images), train=True)
        found = loss(params, output, labels, guide, ready)
        return jnp.sum(jnp.stack(list(found.terms.values()))), (output.stats, found)

    def step(
        state: tuple[Variables, PyTree],
        batch: PyTree,
        guide: PyTree,
        rate: jax.Array,
        ready: PyTree,
    ) -> tuple[tuple[Variables, PyTree], Loss]:
        before, momentum = state
        grads, (stats, found) = jax.grad(objective, has_aux=True)(
            before.params, before.stats, batch, guide, ready
        )
        grads = correct(grads, before.params, guide)
        params, momentum = sgd_step(tx, grads, momentum, before.params, rate)
        return (Variables(params, stats), momentum), found

    return step


def ordered(member: Member, key: Key) -> Member:
    """A device whose images come in a random order, drawn with its key of the round.

    Not part of `train`: drawing for all devices together is cheap, while one draw per
    device costs more than a step of a small net.
    """
    length = member.data.labels.shape[0]
    drawn = jax.random.uniform(keys.stream(key, "order"), (length,))
    own = jnp.arange(length, dtype=jnp.int32) < member.data.size
    order = jnp.argsort(jnp.where(own, drawn, 2.0)).astype(jnp.int32)
    return replace(member, order=order)


class _Step(NamedTuple):
    """A step of a device before it is done; of all steps, `[steps, ...]`.

    Attributes:
      number: int32, from 0.
      picked: int32 `[batch]`, which images: they come in their order, which starts
        again at its end.
      labels: int32 `[batch]`, theirs.
      ready: see `Ahead`.
    """

    number: jax.Array
    picked: jax.Array
    labels: jax.Array
    ready: PyTree


def _every_step(
    local: Local, ahead: Ahead, member: Member, guide: PyTree, key: Key
) -> _Step:
    steps, size = local.steps, local.batch_size
    numbers = jnp.arange(steps, dtype=jnp.int32)
    places = jnp.arange(steps * size, dtype=jnp.int32).reshape(steps, size)
    picked = member.order[places % member.data.size]
    labels = member.data.labels[picked]
    each_key = jax.random.split(key, steps)
    ready = jax.vmap(
        lambda labels, key: ahead(labels, guide, keys.stream(key, "loss"))
    )(labels, each_key)
    return _Step(numbers, picked, labels, ready)
