"""Gradient inversion: which images make a device send the observed update?

The attacker trains the broadcast net on candidate images, as the device would, and
optimises the candidates until their update has the direction of the observed one:

    min over x in [0, 1]   1 - cos(u(x), u) + w TV(x)
    u(x) = w_K - w_0,      w_(j+1) = w_j - lr grad CE(net(x; w_j), y)

Zhu et al., "Deep leakage from gradients", NeurIPS 2019, with the cosine, the prior and
the signed Adam of Geiping et al., "Inverting gradients: how easy is it to break privacy
in federated learning?", NeurIPS 2020, equation 4 and section 6 (several local steps).

The attacker gets more information than a link reveals, so that the attack is as strong
as possible: the labels, the learning rate, the number of steps, and that each step used
all images. For a single image, the label can be computed from the update (Zhao et al.,
"iDLG: improved deep leakage from gradients", 2020).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import linear_sum_assignment

from ecogen_jax import losses
from ecogen_jax.nets.functional import Net, Variables
from ecogen_jax.relay.optimizer import adam, descend, sgd, sgd_step
from ecogen_jax.types import Key, Labels, PyTree

Images = Float[Array, "batch height width channels"]


class Training(NamedTuple):
    """What a device does with its images, each step on all of them.

    Attributes:
      steps: SGD steps.
      learning_rate: of SGD.
      momentum: of SGD.
    """

    steps: int
    learning_rate: float | jax.Array
    momentum: float


class Search(NamedTuple):
    """How the attacker looks for images.

    Attributes:
      steps: of Adam.
      learning_rate: of Adam, in units of the range of a pixel; falls by a cosine.
      smooth: `w`, the weight of the total variation.
    """

    steps: int
    learning_rate: float = 0.1
    smooth: float = 3e-2


def update(
    net: Net, before: Variables, images: Images, labels: Labels, training: Training
) -> PyTree:
    """The change of a net's parameters by training on some images.

    Args:
      net: in training mode.
      before: what the device was sent.
      images: in [0, 1].
      labels: int32 `[batch]`.
      training: of the device.

    Returns:
      A tree like `before.params`.
    """
    tx = sgd(training.momentum)

    def loss(params: PyTree, stats: PyTree) -> tuple[jax.Array, PyTree]:
        output = net.apply(Variables(params, stats), images, train=True)
        return losses.cross_entropy(output.value, labels), output.stats

    def step(
        state: tuple[Variables, PyTree], rate: jax.Array
    ) -> tuple[tuple[Variables, PyTree], None]:
        now, momentum = state
        grads, stats = jax.grad(loss, has_aux=True)(now.params, now.stats)
        params, momentum = sgd_step(tx, grads, momentum, now.params, rate)
        return (Variables(params, stats), momentum), None

    rates = jnp.full(training.steps, training.learning_rate)
    (after, _), _ = jax.lax.scan(step, (before, tx.init(before.params)), rates)
    return jax.tree.map(jnp.subtract, after.params, before.params)


def invert(
    net: Net,
    before: Variables,
    heard: PyTree,
    like: Images,
    labels: Labels,
    key: Key,
    *,
    training: Training,
    search: Search,
) -> Images:
    """Looks for the images behind an update.

    Args:
      net: of the device.
      before: what the device was sent.
      heard: the observed update, a tree like `before.params`.
      like: images of the right number and size; their values do not matter.
      labels: of the device's images.
      key: of the first guess, uniform in [0, 1].
      training: of the device.
      search: of the attacker.

    Returns:
      The images found, in [0, 1].
    """
    tx = adam(search.learning_rate, total_steps=search.steps)

    def objective(images: Images) -> jax.Array:
        made = update(net, before, images, labels, training)
        return 1.0 - cosine(made, heard) + search.smooth * variation(images)

    def step(
        state: tuple[Images, PyTree], _: None
    ) -> tuple[tuple[Images, PyTree], None]:
        images, optimizer = state
        signs = jnp.sign(jax.grad(objective)(images))
        images, optimizer = descend(tx, signs, optimizer, images)
        return (jnp.clip(images, 0.0, 1.0), optimizer), None

    first = jax.random.uniform(key, like.shape)
    (images, _), _ = jax.lax.scan(
        step, (first, tx.init(first)), None, length=search.steps
    )
    return images


def cosine(first: PyTree, second: PyTree) -> jax.Array:
    """Cosine of the angle between two updates, all leaves as one vector."""
    # The floor keeps the gradient finite if an update is zero; updates of well-fitted
    # images have norms of about 1e-8.
    lengths = [jax.lax.rsqrt(_dot(each, each) + 1e-24) for each in (first, second)]
    return _dot(first, second) * lengths[0] * lengths[1]


def variation(images: Images) -> jax.Array:
    """Mean absolute difference of neighbouring pixels, down plus across.

    Rudin et al., "Nonlinear total variation based noise removal algorithms", 1992, in
    the anisotropic form of Geiping et al.
    """
    down = jnp.mean(jnp.abs(images[:, 1:] - images[:, :-1]))
    return down + jnp.mean(jnp.abs(images[:, :, 1:] - images[:, :, :-1]))


def linear_input(kernel: Float[Array, "inputs outputs"], bias: Array) -> Array:
    """The one input of a linear layer, from its update: no search needed.

    `dL/dW = x (dL/db)^T`, so that any column over its bias is `x`; several steps on the
    same input only add multiples of it. Of several inputs it is a mixture. Phong et
    al., "Privacy-preserving deep learning via additively homomorphic encryption", IEEE
    TIFS 2018, section 3.

    Args:
      kernel: change of the weights.
      bias: change of the biases `[outputs]`, not all zero.

    Returns:
      The input `[inputs]`, by the output whose bias changed most.
    """
    most = jnp.argmax(jnp.abs(bias))
    return kernel[:, most] / bias[most]


def errors(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Mean squared error of each true image, by the best match of all.

    An update does not tell the order of the images, so the found ones are assigned to
    the true ones such that the sum of errors is least.

    Args:
      found: `[batch, height, width, channels]` in [0, 1].
      true: likewise.

    Returns:
      `[batch]`, in the order of `true`.
    """
    pairs = np.square(true[:, None] - found[None]).mean(axis=(2, 3, 4))
    rows, columns = linear_sum_assignment(pairs)
    return pairs[rows, columns]


def psnr_db(error: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio, `-10 log10 error`: pixels in [0, 1], 100 at most."""
    return -10.0 * np.log10(np.maximum(error, 1e-10))


def _dot(first: PyTree, second: PyTree) -> jax.Array:
    products = jax.tree.map(jnp.vdot, first, second)
    return jnp.sum(jnp.stack(jax.tree.leaves(products)))
