"""A feature generator: noise and a label in, inputs of a classifier's head out.

FedGen (Zhu et al., ICML 2021): `[u; one_hot(y)]` with `u ~ U(0, 1)`, one hidden layer
of 256 units with BatchNorm and ReLU, and a linear layer to the features that the last
layer of the classifier takes. Both layers start as in PyTorch.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from ecogen_jax.nets.functional import BatchNorm, Net, functional
from ecogen_jax.nets.layers import linear_as_torch
from ecogen_jax.types import PyTree

HIDDEN = 256
HEAD = "classifier"
"""Name of the last, linear layer of every classifier."""


class LatentGenerator(nnx.Module):
    """Maps `(noise [batch, noise_size], labels [batch])` to `[batch, features]`."""

    def __init__(
        self, features: int, num_classes: int, *, noise_size: int, rngs: nnx.Rngs
    ) -> None:
        self.num_classes = num_classes
        self.dense = linear_as_torch(noise_size + num_classes, HIDDEN, rngs=rngs)
        self.norm = BatchNorm(HIDDEN)
        self.represent = linear_as_torch(HIDDEN, features, rngs=rngs)

    def __call__(
        self, noise: jax.Array, labels: jax.Array, *, train: bool
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Features, and no activations."""
        code = jax.nn.one_hot(labels, self.num_classes, dtype=noise.dtype)
        x = self.dense(jnp.concatenate([noise, code], axis=-1))
        return self.represent(jax.nn.relu(self.norm(x, train=train))), ()


def latent_generator(*, features: int, num_classes: int, noise_size: int) -> Net:
    """Builds the generator.

    Args:
      features: length of the classifier's features, see `num_features`.
      num_classes: number of labels that condition it.
      noise_size: length of the noise vector.

    Returns:
      A net whose `apply` takes noise `[batch, noise_size]` and labels `[batch]`.
    """
    return functional(
        lambda rngs: LatentGenerator(
            features, num_classes, noise_size=noise_size, rngs=rngs
        )
    )


def head(params: PyTree, features: jax.Array) -> jax.Array:
    """The output of a classifier's last layer on features, `[batch, classes]`.

    Args:
      params: of any classifier, or of its last layer only.
      features: `[batch, features]`.
    """
    last = params[HEAD]
    return features @ last["kernel"] + last["bias"].reshape(1, -1)


def num_features(net: Net, shape: tuple[int, int, int]) -> int:
    """Length of the features that a classifier's last layer takes."""
    variables = jax.eval_shape(net.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    output = jax.eval_shape(lambda v, x: net.apply(v, x, train=False), variables, image)
    return output.activations[-1].shape[-1]
