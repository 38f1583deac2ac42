"""Task inference at a tier: class hits on labelled images, and its FLOPs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ecogen_jax import mesh
from ecogen_jax.energy import meter
from ecogen_jax.metrics import class_hits
from ecogen_jax.nets.classifier import to_unit
from ecogen_jax.nets.functional import Net, Variables
from ecogen_jax.types import PyTree

CHUNK = 250
"""Images in one call: all splits are cut into such chunks, so one program serves.

Twice as many no longer fit into a core's caches: 1.5 times the time, measured."""

Hits = Callable[[PyTree, np.ndarray, np.ndarray], np.ndarray]
EnsembleHits = Callable[[Sequence[Variables], np.ndarray, np.ndarray], np.ndarray]


def inference(net: Net, *, backend: str, num_devices: int, chunk: int = 0) -> Hits:
    """Builds the inference of one tier: `answers` of its classifier, by its variables.

    Args:
      net: the tier's classifier.
      backend: see `mesh.map_clients`.
      num_devices: see `mesh.map_clients`.
      chunk: see `mesh.map_clients`.
    """
    return answers(
        lambda variables, images: net.apply(variables, images, train=False).value,
        backend=backend,
        num_devices=num_devices,
        chunk=chunk,
    )


def answers(
    ask: Callable[[PyTree, jax.Array], jax.Array],
    *,
    backend: str,
    num_devices: int,
    chunk: int = 0,
) -> Hits:
    """Builds the inference of parties that answer each by itself.

    Args:
      ask: `ask(nets, images) -> logits` of one party, images in [0, 1].
      backend: see `mesh.map_clients`.
      num_devices: see `mesh.map_clients`.
      chunk: see `mesh.map_clients`.

    Returns:
      `hits(nets, images, labels)`: for nets `[parties, ...]`, uint8 images
      `[n, height, width, channels]` and labels `[n]`, the correct predictions of each
      party by class, `[parties, classes]`. Parties whose nets are all alike, as devices
      that are served the same net, answer as one.
    """

    def one_party(nets: PyTree, images: jax.Array, labels: jax.Array) -> jax.Array:
        return class_hits(ask(nets, to_unit(images)), labels)

    @jax.jit
    def chunk_hits(nets: PyTree, images: jax.Array, labels: jax.Array) -> jax.Array:
        answer = mesh.map_clients(
            lambda one: one_party(one, images, labels),  # the same images for all
            backend=backend,
            num_devices=num_devices,
            chunk=chunk,
        )
        return answer(nets)

    def hits(nets: PyTree, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        parties = jax.tree.leaves(nets)[0].shape[0]
        if parties > 1 and _alike(nets):
            nets = jax.tree.map(lambda a: a[:1], nets)
        nets = mesh.place(nets, num_devices=num_devices)
        total = [chunk_hits(nets, *some) for some in _chunks(images, labels)]
        found = np.sum(mesh.to_host(total), axis=0)
        return np.broadcast_to(found, (parties, *found.shape[1:]))

    return hits


def _alike(nets: PyTree) -> bool:
    """Whether all parties `[parties, ...]` have the first one's nets."""
    return all(bool((a == a[:1]).all()) for a in jax.tree.leaves(nets))


def ensemble(
    nets: Sequence[Net], *, backend: str, num_devices: int, chunk: int = 0
) -> EnsembleHits:
    """Builds the inference of many parties together: the mean of their logits.

    Args:
      nets: the classifiers of the parties, one a kind.
      backend: see `mesh.map_clients`.
      num_devices: see `mesh.map_clients`.
      chunk: see `mesh.map_clients`.

    Returns:
      `hits(groups, images, labels)`: for one group of variables `[members, ...]` a
      kind, uint8 images `[n, height, width, channels]` and labels `[n]`, the right
      answers by class, `[classes]`.
    """
    mapping = {"backend": backend, "num_devices": num_devices, "chunk": chunk}
    sums = [_sum_of_logits(net, mapping) for net in nets]
    right = jax.jit(class_hits)

    def hits(
        groups: Sequence[Variables], images: np.ndarray, labels: np.ndarray
    ) -> np.ndarray:
        # Groups may be on different JAX devices, so their sums are added on the host.
        placed = [mesh.place(group, num_devices=num_devices) for group in groups]
        total = []
        for some, answers in _chunks(images, labels):
            each = [
                mesh.to_host(logits(group, some))
                for logits, group in zip(sums, placed, strict=True)
            ]
            total.append(right(np.sum(each, axis=0), answers))
        return np.sum(mesh.to_host(total), axis=0)

    return hits


def _sum_of_logits(
    net: Net, mapping: Mapping[str, Any]
) -> Callable[[Variables, np.ndarray], jax.Array]:
    """The sum over parties `[parties, ...]` of their logits, `[batch, classes]`."""

    @jax.jit
    def summed(variables: Variables, images: jax.Array) -> jax.Array:
        answer = mesh.map_clients(
            lambda one: net.apply(one, to_unit(images), train=False).value, **mapping
        )
        return answer(variables).sum(axis=0)

    return summed


def _chunks(
    images: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    # Without images there is one chunk of padding, whose hits have the same shape.
    for start in range(0, max(1, len(labels)), CHUNK):
        some = slice(start, start + CHUNK)
        yield _padded(images[some], labels[some])


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
