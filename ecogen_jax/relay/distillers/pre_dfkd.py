"""PRE-DFKD: a small variational autoencoder replays earlier generated images.

Binici, Aggarwal, Pham, Leman and Mitra, "Robust and resource-efficient data-free
knowledge distillation by generative pseudo replay", AAAI 2022.

With `t = teacher(x)`, `s = student(x)`, `p = softmax(t)`, `x = G(z)`, features `f`
before the teacher's last layer, and a memory of encoder `q(v | x)` and decoder `D`:

    G minimises  a CE(t, argmax t) - b mean |f| + c sum_c m_c log m_c
                 - d JS(softmax(t / 3), softmax(s / 3)),  m = mean_i p_i
    S minimises  mean |s - t|_1   on fresh images of G and replayed ones D(v)
    memory       minimises  mean |x - D(v)| + mean |t(x) - t(D(v))|_1
                 + 1e-5 KL(q(v | x) || N(0, 1)),  v drawn from q(v | x),
                 on new and on replayed images x

So the student sees images of all past generators, at the memory cost of one small net.

Differs from the published recipe:
- `D` has the architecture of the generator and gets a label: the teachers' prediction
  for an image that is memorised, a random label for replay. So classes are balanced
  without optimising `v` before each replay (published: `v` is optimised).
- The memory is trained after the student, on the batch of the generator's step
  (published: on the images of the first four student steps, in between); its encoder
  has one hidden dense layer (published: three convolutions), its Adam b1 = 0.5
  (published: 0.9). It replays in inference mode and from the first step on (published:
  in training mode, and not in the first step).
- Generator and decoder are the conditional ones of this project, with images in [0, 1]
  (published: spectral norm, tanh, BatchNorm without scale and shift, images of unit
  variance, on which the L1 distance of pixels weighs more).
- The student is trained with Adam and a cosine schedule (published: SGD, Adam on
  MNIST); batch size and budget are those of the config (published: 1024, 14,400
  generator steps with ten student steps each).
- While the generator is trained, the student is in inference mode (published: in
  training mode, which makes a difference for nets with BatchNorm); the generator's Adam
  has b1 = 0.5 (published: 0.9).
- JS is the Jensen-Shannon divergence, from each of the two to their mean (the published
  code has the divergences in the other direction). It is not clamped, and its gradient
  also reaches the images through the teacher. The published code also averages it over
  classes: weight 1 is 0.1 for ten classes.
- The balance uses the natural logarithm: the published weight 5 for log10 is 2.17 here.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import optax
from flax import struct

from ecogen_jax import keys, losses
from ecogen_jax.nets.encoder import encoder as encoder_net
from ecogen_jax.nets.functional import Net, Output, Variables
from ecogen_jax.relay.distillers import engine, live
from ecogen_jax.relay.distillers.base import (
    Distiller,
    Hop,
    HopState,
    Kind,
    Metrics,
)
from ecogen_jax.relay.distillers.labels import draw_labels
from ecogen_jax.relay.ensemble import Teachers, ensemble
from ecogen_jax.relay.optimizer import descend
from ecogen_jax.types import Key, Leaf, PyTree

# From the published code, https://github.com/kuluhan/PRE-DFKD.
TEMPERATURE = 3.0  # temperature of the adversarial term
REPLAY_SHARE = 8  # batches of new images per replayed batch
MEMORY_STEPS = 4  # steps of the memory per generator step
MEMORY_SLOWER = 40  # the memory's learning rate is the generator's divided by this
DIVERGENCE_WEIGHT = 1e-5


@struct.dataclass
class Memory:
    """The autoencoder that memorises generated images.

    Attributes:
      encoder: see `nets.encoder`.
      decoder: as the generator; its noise is the latent vector.
      optimizer: optax state for the parameters of both.
    """

    encoder: Variables
    decoder: Variables
    optimizer: Leaf


def pre_dfkd(hop: Hop) -> Distiller:
    """Builds the distiller."""
    shape, latent_size = hop.generation.shape, hop.generation.latent_size
    encoder = encoder_net(shape=shape, latent_size=latent_size)
    begin = engine.first_state(hop, engine.generator_adam(hop))
    how = {"divergence": "js", "temperature": TEMPERATURE}

    def init(
        taught: Variables, made: Variables, received: Teachers, key: Key
    ) -> HopState:
        memory = _first_memory(hop, encoder, key)
        return replace(begin(taught, made, received, key), extra=memory)

    def loss(target: jax.Array, output: Output) -> jax.Array:
        return jnp.mean(losses.logit_distance(target, output.value))

    def source(state: HopState, received: Teachers, key: Key) -> jax.Array:
        new = live.images(hop, state, received, key)
        return jnp.concatenate([new, replayed(hop, state.extra, received, key)])

    study_fresh = live.study_fresh(hop, source, loss)

    def step(state: HopState, received: Teachers, key: Key) -> tuple[HopState, Metrics]:
        noise = keys.stream(key, "generator")
        state, made = live.train_generator(hop, state, received, noise, **how)
        state, value = study_fresh(state, received, key)
        memory, remembered = memorise(
            hop, encoder, state.extra, received, made, keys.stream(key, "memory")
        )
        metrics = engine.metrics(state, made, value) | {"memory": remembered}
        return replace(state, extra=memory), metrics

    return Distiller(init, step)


def replayed(hop: Hop, memory: Memory, received: Teachers, key: Key) -> jax.Array:
    """Images that the memory generates, of the classes that some teacher knows."""
    count = max(1, hop.generation.batch_size // REPLAY_SHARE)
    key = keys.stream(key, "replay")
    labels = draw_labels(keys.stream(key, "labels"), received.weights, count)
    latent = jax.random.normal(
        keys.stream(key, "latent"), (count, hop.generation.latent_size)
    )
    return hop.generator.apply(memory.decoder, latent, labels, train=False).value


def memorise(
    hop: Hop,
    encoder: Net,
    memory: Memory,
    received: Teachers,
    made: engine.Made,
    key: Key,
) -> tuple[Memory, jax.Array]:
    """The memory's steps, on halves of a new batch and on its own replayed images.

    Returns:
      The memory after them, and the mean of its loss.
    """
    batch = hop.generation.batch_size

    def one(memory: Memory, key: Key) -> tuple[Memory, jax.Array]:
        order = jax.random.permutation(keys.stream(key, "half"), batch)
        new = made.images[order[: (batch + 1) // 2]]
        images = jnp.concatenate([new, replayed(hop, memory, received, key)])
        return _improve(hop, encoder, memory, received, images, key)

    memory, values = jax.lax.scan(one, memory, jax.random.split(key, MEMORY_STEPS))
    return memory, jnp.mean(values)


def _improve(
    hop: Hop,
    encoder: Net,
    memory: Memory,
    received: Teachers,
    images: jax.Array,
    key: Key,
) -> tuple[Memory, jax.Array]:
    """One step of the autoencoder on these images."""
    target = ensemble(hop.teachers, received, images).logits
    labels = jnp.argmax(target, axis=-1).astype(jnp.int32)

    def objective(params: PyTree) -> tuple[jax.Array, PyTree]:
        coding, decoding = (
            Variables(params["encoder"], memory.encoder.stats),
            Variables(params["decoder"], memory.decoder.stats),
        )
        code = encoder.apply(coding, images, train=True).value
        mean, log_variance = jnp.split(code, 2, axis=-1)
        noise = jax.random.normal(keys.stream(key, "code"), mean.shape)
        latent = mean + jnp.exp(log_variance / 2) * noise
        output = hop.generator.apply(decoding, latent, labels, train=True)
        seen = ensemble(hop.teachers, received, output.value).logits
        loss = (
            jnp.mean(jnp.abs(images - output.value))
            + jnp.mean(losses.logit_distance(target, seen))
            + DIVERGENCE_WEIGHT * losses.normal_divergence(mean, log_variance)
        )
        return loss, output.stats

    before = {"encoder": memory.encoder.params, "decoder": memory.decoder.params}
    (loss, stats), grads = jax.value_and_grad(objective, has_aux=True)(before)
    params, optimizer = descend(_adam(hop), grads, memory.optimizer, before)
    after = Memory(
        encoder=Variables(params["encoder"], memory.encoder.stats),
        decoder=Variables(params["decoder"], stats),
        optimizer=optimizer,
    )
    return after, loss


def _first_memory(hop: Hop, encoder: Net, key: Key) -> Memory:
    coding = encoder.init(keys.stream(key, "encoder"))
    decoding = hop.generator.init(keys.stream(key, "decoder"))
    params = {"encoder": coding.params, "decoder": decoding.params}
    return Memory(coding, decoding, _adam(hop).init(params))


def _adam(hop: Hop) -> optax.GradientTransformation:
    generation = hop.generation
    slower = generation._replace(learning_rate=generation.learning_rate / MEMORY_SLOWER)
    return engine.generator_adam(hop._replace(generation=slower))


PRE_DFKD = Kind(
    pre_dfkd,
    frozenset(("one_hot", "activation", "balance", "adversarial")),
    one_generator=True,
)
