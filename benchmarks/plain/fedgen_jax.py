"""FedGen in plain JAX, with `lax` convolutions.

    python -m benchmarks.plain.fedgen_jax loop|scan|devices

The devices of a round are side by side under `vmap`, their local steps a Python loop
over a jitted step or a scan within one program; or a Python loop goes over the devices,
the local steps of each jitted. The fastest counts. The algorithm is that of
`ecogen_jax/relay/federated/fedgen.py`, whose docstring has the equations (Zhu et al.,
ICML 2021). Nothing is imported from there.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks import tasks
from benchmarks.plain import fedgen_sizes as sizes
from benchmarks.speaker import Speaker

Tree = Any


def main(way: str) -> None:
    """Works for as long as it is asked to: a round a unit."""
    as_bytes, *others = sizes.data()
    floats = tasks.as_floats(as_bytes)
    images, labels, counts = map(jnp.asarray, (floats, *others))
    state = first(jax.random.PRNGKey(0))
    number = 0
    speaker = Speaker("jax", "optax")
    while True:
        state = one_round(state, images, labels, counts, number, way)
        jax.block_until_ready(state)
        number = (number + 1) % 200
        speaker.tick()


def one_round(
    state: Tree,
    images: jax.Array,
    labels: jax.Array,
    counts: jax.Array,
    number: int,
    way: str,
) -> Tree:
    """Samples devices, trains them, trains the generator, averages."""
    params, stats, generator, optimizer = state
    choose, local, learn = jax.random.split(jax.random.PRNGKey(number), 3)
    active = jax.random.choice(choose, sizes.DEVICES, (sizes.ACTIVE,), replace=False)
    weight = sizes.GUIDANCE * sizes.GENERATOR_DECAY**number if number else 0.0
    rate = sizes.LEARNING_RATE * sizes.LEARNING_DECAY**number
    keys = jax.random.split(local, (sizes.ACTIVE, sizes.STEPS))
    given = (generator, images, labels, weight, rate)
    trained, own = WAYS[way](params, stats, active, keys, *given)
    generator, optimizer = train_generator(
        generator, optimizer, trained["classifier"], counts[active], learn
    )
    params = jax.tree.map(lambda a: jnp.mean(a, axis=0), trained)
    stats = jax.tree.map(lambda all_, some: all_.at[active].set(some), stats, own)
    return params, stats, generator, optimizer


def local_step(
    params: Tree,
    stats: Tree,
    device: jax.Array,
    key: jax.Array,
    generator: Tree,
    images: jax.Array,
    labels: jax.Array,
    weight: jax.Array,
    rate: jax.Array,
) -> tuple[Tree, Tree]:
    """One SGD step of one device."""
    batch, *draws = jax.random.split(key, 4)
    index = jax.random.randint(batch, (sizes.BATCH,), 0, sizes.IMAGES)
    x, y = images[device, index], labels[device, index]
    drawn = jax.random.randint(draws[0], (sizes.GENERATOR_BATCH,), 0, sizes.CLASSES)
    made, _ = generate(generator, drawn, draws[1], train=False)
    like, _ = generate(generator, y, draws[2], train=False)

    def objective(params: Tree) -> tuple[jax.Array, Tree]:
        logits, after = classify(params, stats, x)
        target = jax.lax.stop_gradient(dense(params["classifier"], like))
        log_p, log_q = jax.nn.log_softmax(target), jax.nn.log_softmax(logits)
        divergence = jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1))
        guided = cross_entropy(dense(params["classifier"], made), drawn)
        return cross_entropy(logits, y) + weight * (guided + divergence), after

    grads, stats = jax.grad(objective, has_aux=True)(params)
    tx = optax.sgd(rate)
    updates, _ = tx.update(grads, tx.init(params))
    return optax.apply_updates(params, updates), stats


each_device: Callable[..., tuple[Tree, Tree]] = jax.vmap(
    local_step, (0, 0, 0, 0, None, None, None, None, None)
)
step = jax.jit(each_device)


def by_step(
    params: Tree, stats: Tree, active: jax.Array, keys: jax.Array, *given: Any
) -> tuple[Tree, Tree]:
    """All devices side by side, one step after another."""
    trained, own = received(params, stats, active)
    for key in keys.swapaxes(0, 1):
        trained, own = step(trained, own, active, key, *given)
    return trained, own


@jax.jit
def by_scan(
    params: Tree, stats: Tree, active: jax.Array, keys: jax.Array, *given: Any
) -> tuple[Tree, Tree]:
    """All devices side by side, and all steps in one program."""
    state, _ = jax.lax.scan(
        lambda state, key: (each_device(*state, active, key, *given), None),
        received(params, stats, active),
        keys.swapaxes(0, 1),
    )
    return state


def received(params: Tree, stats: Tree, active: jax.Array) -> tuple[Tree, Tree]:
    """The server's net for each device of the round, and its own statistics."""
    copies = jax.tree.map(lambda a: jnp.stack([a] * sizes.ACTIVE), params)
    return copies, jax.tree.map(lambda a: a[active], stats)


def by_device(
    params: Tree, stats: Tree, active: jax.Array, keys: jax.Array, *given: Any
) -> tuple[Tree, Tree]:
    """One device after another."""
    done = [
        train_device(params, stats, device, key, *given)
        for device, key in zip(active, keys, strict=True)
    ]
    return jax.tree.map(lambda *each: jnp.stack(each), *done)


@jax.jit
def train_device(
    params: Tree, stats: Tree, device: jax.Array, keys: jax.Array, *given: Any
) -> tuple[Tree, Tree]:
    """All steps of one device, unrolled: in a compiled loop, they are slower."""
    own = jax.tree.map(lambda a: a[device], stats)
    for key in keys:
        params, own = local_step(params, own, device, key, *given)
    return params, own


WAYS: dict[str, Callable[..., tuple[Tree, Tree]]] = {
    "loop": by_step,
    "scan": by_scan,
    "devices": by_device,
}


@functools.partial(jax.jit, donate_argnums=(0, 1))
def train_generator(
    generator: Tree, optimizer: Tree, heads: Tree, counts: jax.Array, key: jax.Array
) -> tuple[Tree, Tree]:
    """The server's steps on the generator, in one scan: it has no convolution."""
    share = counts / jnp.maximum(counts.sum(axis=0), 1.0)

    def objective(params: Tree, stats: Tree, key: jax.Array) -> tuple[jax.Array, Tree]:
        drawn, noisy = jax.random.split(key)
        y = jax.random.randint(drawn, (sizes.GENERATOR_BATCH,), 0, sizes.CLASSES)
        made, (noise, after) = generate((params, stats), y, noisy, train=True)
        logits = jax.vmap(lambda head: dense(head, made))(heads)
        log_p = jax.nn.log_softmax(logits)
        chosen = jnp.take_along_axis(log_p, y[None, :, None], axis=-1)[..., 0]
        loss = -jnp.mean(jnp.sum(share[:, y] * chosen, axis=0))
        apart = jnp.mean(jnp.square(noise[:, None] - noise), axis=-1)
        unlike = jnp.mean(jnp.abs(made[:, None] - made), axis=-1)
        return loss + jnp.exp(-jnp.mean(apart * unlike)), after

    def one(state: Tree, key: jax.Array) -> tuple[Tree, None]:
        (params, stats), optimizer = state
        grads, stats = jax.grad(objective, has_aux=True)(params, stats, key)
        updates, optimizer = tx().update(grads, optimizer, params)
        return ((optax.apply_updates(params, updates), stats), optimizer), None

    keys = jax.random.split(key, sizes.GENERATOR_STEPS)
    state, _ = jax.lax.scan(one, (generator, optimizer), keys)
    return state


def tx() -> optax.GradientTransformation:
    """The generator's Adam, whose rate falls once a round."""
    rate = optax.exponential_decay(
        sizes.GENERATOR_RATE,
        sizes.GENERATOR_STEPS,
        sizes.GENERATOR_DECAY,
        staircase=True,
    )
    return optax.chain(optax.add_decayed_weights(sizes.WEIGHT_DECAY), optax.adam(rate))


def classify(params: Tree, stats: Tree, x: jax.Array) -> tuple[jax.Array, Tree]:
    """Logits in training mode, and the running statistics after them."""
    after = {}
    x = 2.0 * x - 1.0
    for name in ("conv1", "conv2"):
        x = jax.lax.conv_general_dilated(
            x,
            params[name]["kernel"],
            (2, 2),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x, after[name] = batch_norm(params[name], stats[name], x, train=True)
        x = jax.nn.relu(x)
    features = dense(params["dense"], x.reshape(x.shape[0], -1))
    return dense(params["classifier"], features), after


def generate(
    generator: Tree, labels: jax.Array, key: jax.Array, *, train: bool
) -> tuple[jax.Array, tuple[jax.Array, Tree]]:
    """Features; the noise that they are made of, and the statistics after them."""
    params, stats = generator
    noise = jax.random.uniform(key, (labels.shape[0], sizes.NOISE))
    x = jnp.concatenate([noise, jax.nn.one_hot(labels, sizes.CLASSES)], axis=-1)
    x = dense(params["dense"], x)
    x, after = batch_norm(params["norm"], stats, x, train=train)
    return dense(params["represent"], jax.nn.relu(x)), (noise, after)


def batch_norm(
    params: Tree, stats: Tree, x: jax.Array, *, train: bool
) -> tuple[jax.Array, Tree]:
    """Normalised over all axes but the last, and the running statistics."""
    mean, var = stats["mean"], stats["var"]
    if train:
        axes = tuple(range(x.ndim - 1))
        mean, var = jnp.mean(x, axes), jnp.var(x, axes)
        stats = jax.tree.map(
            lambda old, new: 0.9 * old + 0.1 * new, stats, {"mean": mean, "var": var}
        )
    scaled = (x - mean) * jax.lax.rsqrt(var + 1e-5)
    return scaled * params["scale"] + params["bias"], stats


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean over the batch."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses)


def dense(params: Tree, x: jax.Array) -> jax.Array:
    """A linear layer."""
    return x @ params["kernel"] + params["bias"]


def first(key: jax.Array) -> Tree:
    """Net, statistics of all devices, generator and its optimiser."""
    init = jax.nn.initializers.he_normal()
    draws = iter(jax.random.split(key, 6))

    def normalised(size: int) -> Tree:
        return {"scale": jnp.ones(size), "bias": jnp.zeros(size)}

    def running(*shape: int) -> Tree:
        return {"mean": jnp.zeros(shape), "var": jnp.ones(shape)}

    def linear(inputs: int, outputs: int) -> Tree:
        kernel = init(next(draws), (inputs, outputs))
        return {"kernel": kernel, "bias": jnp.zeros(outputs)}

    one, two = sizes.CHANNELS
    params = {
        "conv1": {"kernel": init(next(draws), (3, 3, 1, one)), **normalised(one)},
        "conv2": {"kernel": init(next(draws), (3, 3, one, two)), **normalised(two)},
        "dense": linear(7 * 7 * two, sizes.FEATURES),
        "classifier": linear(sizes.FEATURES, sizes.CLASSES),
    }
    stats = {
        "conv1": running(sizes.DEVICES, one),
        "conv2": running(sizes.DEVICES, two),
    }
    made = {
        "dense": linear(sizes.NOISE + sizes.CLASSES, sizes.HIDDEN),
        "norm": normalised(sizes.HIDDEN),
        "represent": linear(sizes.HIDDEN, sizes.FEATURES),
    }
    return params, stats, (made, running(sizes.HIDDEN)), tx().init(made)


if __name__ == "__main__":
    main(sys.argv[1])
