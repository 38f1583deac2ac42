"""FedGen: the server distils the devices' heads into a feature generator.

On the server, Adam steps on labels y, noise u ~ U(0, 1) and features g = G(u, y):

    L_G = sum_k mean_i w_k(y_i) CE(head_k(g_i), y_i)
          + exp(-mean_ij |u_i - u_j|^2 |g_i - g_j|)
    w_k(y) = n_k(y) / sum_k n_k(y), over the devices of the round

On a device, with its images (x, y) and labels y' drawn uniformly:

    L_k = CE(f(x), y) + a CE(head(G(u, y')), y')
          + a KL(stop softmax(head(G(u, y))) || softmax(f(x)))

with `a` decreasing from round to round, and zero in the first round, in which the
server's generator is still untrained. The generator is in inference mode on devices.
Nets are averaged as in FedAvg.

Zhu et al., "Data-free knowledge distillation for heterogeneous federated learning",
ICML 2021, equations 4 to 6. As in their code, the generator makes features instead of
images, both distances are means over their entries, and the adversarial term has weight
zero (left out). Differs from their code:

* `w_k` weights each feature, as in the paper. Their code multiplies the mean of `w_k`
  over the batch by the mean of CE, so that a device also teaches labels that it has
  never seen.
* `n_k` counts all images of a device. Their code counts those of its batches, plus one.
* The labels of a server's batch are drawn from all classes. Their code draws from the
  classes that a device of the round holds. A class that no device holds has weight zero
  here.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from optax import GradientTransformation

from ecogen_jax import keys, losses
from ecogen_jax.nets.functional import Net, Output, Variables
from ecogen_jax.nets.latent import HEAD, head, latent_generator, num_features
from ecogen_jax.relay.federated.base import (
    Arrived,
    Member,
    Method,
    Metrics,
    Task,
    Trained,
)
from ecogen_jax.relay.federated.fedavg import Server, averaged, fedavg
from ecogen_jax.relay.federated.local import Ahead, Loss, local_training
from ecogen_jax.relay.federated.received import Facts, nets_alone, shares, told
from ecogen_jax.relay.federated.sharing import Kept, difference, sharing
from ecogen_jax.relay.federated.trees import chosen
from ecogen_jax.relay.optimizer import descend, stepwise_adam
from ecogen_jax.types import Key, Leaf, PyTree


@struct.dataclass
class Sent:
    """What a device is sent: the shared layers, and the generator."""

    net: Variables
    generator: Variables


@struct.dataclass
class Guide:
    """The additional input of local training: the generator and its weight."""

    generator: Variables
    weight: Leaf


@struct.dataclass
class Learner:
    """The generator in training, the server's `extra`."""

    generator: Variables
    optimizer: Leaf


def fedgen(task: Task) -> Method:
    """Builds FedGen; its options are those of the config's section `fedgen`."""
    plain, part, options = fedavg(task), sharing(task), task.options
    maker = feature_maker(task)
    tx = stepwise_adam(
        options["learning_rate"],
        decay=options["decay"],
        every=int(options["steps"]),
        weight_decay=options["weight_decay"],
    )
    train = local_training(
        task.net, task.local, loss=_device_loss, ahead=_making(task, maker)
    )

    def init(key: Key) -> Server:
        generator = maker.init(keys.stream(key, "generator"))
        extra = Learner(generator, tx.init(generator.params))
        return replace(plain.init(key), extra=extra)

    def send(server: Server, edge: Leaf) -> Sent:
        return Sent(plain.send(server, edge), server.extra.generator)

    def device_train(received: Sent, own: Kept, member: Member, key: Key) -> Trained:
        number = member.number.astype(jnp.float32)
        weight = options["weight"] * options["decay"] ** number
        guide = Guide(received.generator, jnp.where(member.number > 0, weight, 0.0))
        found = train(part.joined(received.net, own), member, guide, key)
        return Trained(
            update=difference(part.shared(found.variables), received.net),
            facts=Facts(part.facts(found.variables), member.counts),
            own=part.kept(found.variables),
            metrics=found.metrics,
        )

    learn = _generator_training(task, maker, tx)

    def merge(server: Server, arrived: Arrived, key: Key) -> tuple[Server, Metrics]:
        heads = heads_of(server, arrived)
        share = shares(arrived, told(arrived))
        extra, metrics = learn(server.extra, heads, share, key)
        nets = nets_alone(arrived)
        after = averaged(task, server, nets, keys.stream(key, "aggregate"))
        return replace(after, extra=extra), metrics

    return plain._replace(
        init=init,
        send=send,
        train=device_train,
        merge=merge,
        device=lambda received, own: part.joined(received.net, own),
        pools=0,  # the generator learns from every device's last layer
    )


def feature_maker(task: Task) -> Net:
    """The generator of the inputs of the last layer of the task's net."""
    return latent_generator(
        features=num_features(task.net, task.shape),
        num_classes=task.num_classes,
        noise_size=int(task.options["noise_size"]),
    )


def heads_of(server: Server, arrived: Arrived) -> PyTree:
    """The last layers of devices, `[active, ...]`; the server's for refused ones."""
    changes = arrived.updates.params[HEAD]
    nothing = jax.tree.map(jnp.zeros_like, changes)
    changes = chosen(arrived.weights > 0, changes, nothing)
    return jax.tree.map(
        lambda before, change: before[None] + change,
        {HEAD: server.variables.params[HEAD]},
        {HEAD: changes},
    )


class Made(NamedTuple):
    """What the generator makes for a device's step, before it.

    Attributes:
      drawn: int32 `[batch]`, labels from all classes.
      features: of those labels, `[batch, features]`.
      like: of the labels of the device's own batch.
    """

    drawn: jax.Array
    features: jax.Array
    like: jax.Array


def _making(task: Task, maker: Net) -> Ahead:
    """The generated features of a step: the generator stands still in a round."""
    size, classes = int(task.options["batch_size"]), task.num_classes

    def features(guide: Guide, labels: jax.Array, key: Key) -> jax.Array:
        shape = (labels.shape[0], int(task.options["noise_size"]))
        noise = jax.random.uniform(key, shape)
        return maker.apply(guide.generator, noise, labels, train=False).value

    def ahead(labels: jax.Array, guide: Guide, key: Key) -> Made:
        drawn = jax.random.randint(keys.stream(key, "labels"), (size,), 0, classes)
        return Made(
            drawn,
            features(guide, drawn, keys.stream(key, "drawn")),
            features(guide, labels, keys.stream(key, "like")),
        )

    return ahead


def _device_loss(
    params: PyTree, output: Output, labels: jax.Array, guide: Guide, ready: Made
) -> Loss:
    """The loss of a device, see the top of this file."""
    target = jax.lax.stop_gradient(head(params, ready.like))
    divergence = jnp.mean(losses.kl_divergence(target, output.value, 1.0))
    generated = losses.cross_entropy(head(params, ready.features), ready.drawn)
    return Loss(
        {
            "cross_entropy": losses.cross_entropy(output.value, labels),
            "generated": guide.weight * generated,
            "distillation": guide.weight * divergence,
        }
    )


def drawn_inputs(
    key: Key, *, batch_size: int, num_classes: int, noise_size: int
) -> tuple[jax.Array, jax.Array]:
    """What a batch of features is made of on the server.

    Args:
      key: of the batch.
      batch_size: features in it.
      num_classes: number of labels.
      noise_size: length of the noise vector.

    Returns:
      Labels from all classes, int32 `[batch]`, and noise, `[batch, noise_size]`.
    """
    labels = jax.random.randint(
        keys.stream(key, "labels"), (batch_size,), 0, num_classes
    )
    noise = jax.random.uniform(keys.stream(key, "noise"), (batch_size, noise_size))
    return labels, noise


def generator_objective(
    maker: Net,
) -> Callable[..., tuple[jax.Array, tuple[PyTree, Metrics]]]:
    """What the generator minimises.

    Args:
      maker: the generator.

    Returns:
      `objective(params, stats, heads, share, labels, noise) -> (L_G, (stats, terms))`,
      with heads `[devices, ...]` and their `shares`, and `drawn_inputs`.
    """

    def objective(
        params: PyTree,
        stats: PyTree,
        heads: PyTree,
        share: jax.Array,
        labels: jax.Array,
        noise: jax.Array,
    ) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
        output = maker.apply(Variables(params, stats), noise, labels, train=True)
        logits = jax.vmap(lambda one: head(one, output.value))(heads)
        terms = {
            "generator_cross_entropy": shared_cross_entropy(
                logits, labels, share[:, labels]
            ),
            "generator_diversity": diversity(noise, output.value),
        }
        return sum(terms.values(), jnp.float32(0.0)), (output.stats, terms)

    return objective


def _generator_training(
    task: Task, maker: Net, tx: GradientTransformation
) -> Callable[[Learner, PyTree, jax.Array, Key], tuple[Learner, Metrics]]:
    """The server's steps on the generator."""
    options = task.options
    objective = generator_objective(maker)
    draw = functools.partial(
        drawn_inputs,
        batch_size=int(options["batch_size"]),
        num_classes=task.num_classes,
        noise_size=int(options["noise_size"]),
    )

    def learn(
        learner: Learner, heads: PyTree, share: jax.Array, key: Key
    ) -> tuple[Learner, Metrics]:
        def step(
            state: Learner, drawn: tuple[jax.Array, jax.Array]
        ) -> tuple[Learner, Metrics]:
            before = state.generator
            grads, (stats, terms) = jax.grad(objective, has_aux=True)(
                before.params, before.stats, heads, share, *drawn
            )
            params, optimizer = descend(tx, grads, state.optimizer, before.params)
            return Learner(Variables(params, stats), optimizer), terms

        # One draw for all steps: see `local.Ahead`.
        each_key = jax.random.split(key, int(options["steps"]))
        learner, terms = jax.lax.scan(step, learner, jax.vmap(draw)(each_key))
        return learner, {name: each[None] for name, each in terms.items()}

    return learn


def shared_cross_entropy(
    logits: jax.Array, labels: jax.Array, weights: jax.Array
) -> jax.Array:
    """`sum_k mean_i w_ki CE(logits_ki, y_i)`.

    Args:
      logits: of device `k` on input `i`, `[devices, batch, classes]`.
      labels: int32 `[batch]`, the target labels.
      weights: of the devices for each input, such as `w_k(y_i)`, `[devices, batch]`.
    """
    every = jax.nn.log_softmax(logits)
    asked = jnp.take_along_axis(every, labels[None, :, None], axis=-1)[..., 0]
    return -jnp.mean(jnp.sum(weights * asked, axis=0))


def diversity(noise: jax.Array, features: jax.Array) -> jax.Array:
    """`exp(-mean_ij d2(u_i, u_j) d1(g_i, g_j))`: different noise, different features.

    `d2` is the mean squared and `d1` the mean absolute difference over the entries of
    noise `[batch, noise_size]` and features `[batch, features]`.
    """
    apart = jnp.mean(jnp.square(noise[:, None] - noise[None]), axis=-1)
    unlike = jnp.mean(jnp.abs(features[:, None] - features[None]), axis=-1)
    return jnp.exp(-jnp.mean(apart * unlike))
