"""The encoder of a variational autoencoder: an image in, a normal distribution out."""

import jax
from flax import nnx

from ecogen_jax.nets.functional import Net, functional
from ecogen_jax.nets.layers import Linear

HIDDEN = 256


class DenseEncoder(nnx.Module):
    """One hidden layer, without BatchNorm."""

    def __init__(
        self, shape: tuple[int, int, int], *, latent_size: int, rngs: nnx.Rngs
    ) -> None:
        height, width, channels = shape
        self.dense = Linear(height * width * channels, HIDDEN, rngs=rngs)
        self.code = Linear(HIDDEN, 2 * latent_size, rngs=rngs)

    def __call__(
        self, images: jax.Array, *, train: bool
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Means, then logarithms of variances, `[batch, 2 latent]`; no activations."""
        del train  # no layer depends on it
        x = (2 * images - 1).reshape(images.shape[0], -1)
        return self.code(jax.nn.relu(self.dense(x))), ()


def encoder(*, shape: tuple[int, int, int], latent_size: int) -> Net:
    """Builds the encoder (Kingma and Welling, ICLR 2014).

    Args:
      shape: height, width and channels of one image.
      latent_size: length of the latent vector.

    Returns:
      A net from images `[batch, height, width, channels]` in [0, 1] to
      `[batch, 2 latent_size]`: the means of a diagonal normal distribution, then the
      logarithms of its variances.
    """
    return functional(
        lambda rngs: DenseEncoder(shape, latent_size=latent_size, rngs=rngs)
    )
