"""Task inference at a tier: class hits on labelled images, and its FLOPs."""

from collections.abc import Callable

import jax
import numpy as np

from ecogen_jax import mesh
from ecogen_jax.energy import meter
from ecogen_jax.metrics import class_hits
from ecogen_jax.nets.classifier import to_unit
from ecogen_jax.nets.functional import Net, Variables

CHUNK = 500
"""Images in one call: all splits are cut into such chunks, so one program serves."""

Hits = Callable[[Variables, np.ndarray, np.ndarray], np.ndarray]


def inference(net: Net, *, backend: str, num_devices: int) -> Hits:
    """Builds the inference of one tier.

    Args:
      net: the tier's classifier.
      backend: see `mesh.map_clients`.
      num_devices: see `mesh.map_clients`.

    Returns:
      `hits(variables, images, labels)`: for variables `[parties, ...]`, uint8 images
      `[n, height, width, channels]` and labels `[n]`, the right answers of each party
      by class, `[parties, classes]`.
    """

    def one_party(
        variables: Variables, images: jax.Array, labels: jax.Array
    ) -> jax.Array:
        logits = net.apply(variables, to_unit(images), train=False).value
        return class_hits(logits, labels)

    @jax.jit
    def chunk_hits(
        variables: Variables, images: jax.Array, labels: jax.Array
    ) -> jax.Array:
        answer = mesh.map_clients(
            lambda one: one_party(one, images, labels),  # all see the same images
            backend=backend,
            num_devices=num_devices,
        )
        return answer(variables)

    def hits(
        variables: Variables, images: np.ndarray, labels: np.ndarray
    ) -> np.ndarray:
        variables = mesh.place(variables, num_devices=num_devices)
        total = []
        for start in range(0, len(labels), CHUNK):
            some = slice(start, start + CHUNK)
            total.append(chunk_hits(variables, *_padded(images[some], labels[some])))
        return np.sum([np.asarray(part) for part in total], axis=0)

    return hits


def _padded(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    missing = CHUNK - len(labels)
    if not missing:
        return images, labels.astype(np.int32)
    blank = np.zeros((missing, *images.shape[1:]), images.dtype)
    ignored = np.full(missing, -1, np.int32)
    return np.concatenate([images, blank]), np.concatenate([labels, ignored])


def flops_per_image(net: Net, shape: tuple[int, int, int]) -> float:
    """FLOPs of classifying one image of that shape."""
    variables = jax.eval_shape(net.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *shape), np.float32)
    return meter.cost(
        lambda v, x: net.apply(v, x, train=False).value, variables, image
    ).flops
