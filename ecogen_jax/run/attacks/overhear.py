"""Replays a finished federation: the messages of a round, device by device.

The eavesdropper is a curious device: it reads every message on every link, knows the
net, the method and the settings, and has the state that a device keeps (running
statistics, layers that are not shared). The messages are the real ones. The state
before a round comes from the run's second-last checkpoint, and random keys are derived,
so every device sends exactly what it sent in the run.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ecogen_jax import keys
from ecogen_jax.config_federated import is_federated
from ecogen_jax.nets.functional import Net, Variables
from ecogen_jax.relay.federated import schedule
from ecogen_jax.relay.federated.base import Member, Method
from ecogen_jax.relay.federated.compression import compression
from ecogen_jax.relay.federated.engine import Engine, Federation
from ecogen_jax.relay.federated.local import ordered
from ecogen_jax.relay.federated.received import Facts
from ecogen_jax.relay.federated.scaffold import Sent
from ecogen_jax.relay.federated.schedule import Schedule
from ecogen_jax.relay.federated.sharing import Sharing
from ecogen_jax.relay.stage import party_keys
from ecogen_jax.run.build import Experiment, build
from ecogen_jax.run.build_federated import federated
from ecogen_jax.run.checkpoint import Checkpoints
from ecogen_jax.run.results import load_run
from ecogen_jax.types import Key, PyTree

CYCLE = 1
"""A federation is one stage of one cycle."""


class Finished(NamedTuple):
    """A federation that can be replayed.

    Attributes:
      config: of the run.
      experiment: built from it.
      method: what server and devices do.
      engine: the method as a protocol.
      plan: the devices of each round.
      sharing: which layers are sent.
      first: the state before the first round.
      late: the state at the last checkpoint within the federation.
    """

    config: ConfigDict
    experiment: Experiment
    method: Method
    engine: Engine
    plan: Schedule
    sharing: Sharing
    first: Federation
    late: Federation

    @property
    def net(self) -> Net:
        """Of every device."""
        return self.experiment.nets.end[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        return self.experiment.dataset.test_images.shape[1:]

    @property
    def num_classes(self) -> int:
        """Of the dataset."""
        return self.experiment.dataset.num_classes


class Images(NamedTuple):
    """Images that evaluate the attacks, in pairs of the same label.

    Attributes:
      members: training images of a device, uint8 `[pairs, height, width, channels]`.
      others: images that no party trains on, likewise.
      labels: of both, int32 `[pairs]`.
    """

    members: np.ndarray
    others: np.ndarray
    labels: np.ndarray


class Heard(NamedTuple):
    """One device's part of a round.

    Attributes:
      device: its number.
      received: the payload from which it trained.
      reference: the net that it started from, as far as the eavesdropper knows it: the
        broadcast net, or a neighbour's net if no whole net is broadcast.
      change: the change of the net that the device sent, or None if it sent none.
      facts: everything else that it sent.
      images: its own, and others.
    """

    device: int
    received: PyTree
    reference: Variables
    change: Variables | None
    facts: PyTree
    images: Images


def finished(path: str | Path) -> Finished:
    """Reads a finished federation.

    Args:
      path: a run folder.

    Raises:
      FileNotFoundError: the run is not finished, or kept no checkpoint of its rounds.
      ValueError: it is no federation, or a file of it is damaged.
      CheckpointError: a checkpoint of it cannot be read.
    """
    loaded = load_run(path)
    if not is_federated(loaded.config):
        raise ValueError(
            f"{path} is a run of protocol {loaded.config.protocol.name}, which is no "
            "federation: give a run of configs/federated/"
        )
    run = begun(loaded.config)
    return run._replace(late=_checkpointed(Path(path), run))


def begun(config: ConfigDict) -> Finished:
    """The federation of a config before its first round; this state is `late` too.

    Args:
      config: of a federated protocol.

    Raises:
      ConfigError: the config cannot be built.
      DataUnavailableError: no provider has the dataset.
    """
    config.mesh.backend = "vmap"  # one JAX device is enough
    experiment = build(config)
    settings = federated(
        config,
        experiment.nets,
        experiment.topology,
        public=experiment.dataset.train_images[:1],  # only matters for merging
        num_classes=experiment.dataset.num_classes,
    )
    assert settings is not None
    stage = experiment.plan[-1].stage
    key = keys.stream(experiment.key, f"{stage.name}/begin", CYCLE)
    first, _ = stage.begin(experiment.parties, key)
    section = config.federated
    return Finished(
        config=config,
        experiment=experiment,
        method=settings.method,
        engine=settings.engine,
        plan=settings.plan,
        sharing=Sharing(
            head_only=section.share == "head",
            keeps_statistics=section.statistics != "average",
            sends_statistics=section.statistics != "local",
        ),
        first=first,
        late=first,
    )


def _checkpointed(path: Path, run: Finished) -> Federation:
    folder = path / "checkpoints"
    with Checkpoints(folder, finished=True) as checkpoints:
        last = checkpoints.latest()
        assert last is not None
        # The last checkpoint is after the federation; their numbers have no gap.
        before = last.step - 1
        if not (folder / str(before)).exists():
            raise FileNotFoundError(
                f"{folder} holds no state between two rounds: run again with "
                "federated.evaluate_every below federated.rounds, which is "
                f"{run.config.federated.rounds}"
            )
        _, state = checkpoints.restore(before, (run.experiment.parties, run.first))
    return state


def overhear(
    run: Finished, state: Federation, rng: np.random.Generator, *, most: int
) -> list[Heard]:
    """The next round after a state, as the eavesdropper sees it.

    Devices whose message did not arrive, or whose labels were flipped, are left out.

    Args:
      run: the federation.
      state: before the round.
      rng: chooses the images.
      most: pairs of images of a device at most.

    Raises:
      ValueError: no device is left, or none has an image to compare with.
    """
    experiment, number = run.experiment, int(state.number)
    stage = experiment.plan[-1].stage
    assert stage.together is not None
    cohort = stage.together.feed(number)
    key = party_keys(stage, experiment.key, CYCLE, number)
    one = jax.jit(run.engine.one)
    heard = []
    for place, device in enumerate(run.plan.active[number].tolist()):
        if run.plan.fault[number][place] != schedule.OK or run.plan.flips[device]:
            continue
        member = cohort.member(place)
        images = _pairs(run, member, device, rng, most)
        if not len(images.labels):
            continue
        kept = (kept_by(state.own, device), kept_by(state.errors, device))
        message, *_ = one(
            state.server, member, *kept, keys.stream(key, "device", device)
        )
        received = run.method.send(state.server, member.edge)
        decode = _decoder(run, received, kept[0], member, key)
        heard.append(
            Heard(
                device,
                run.method.lesson(received),
                reference(run, state, device),
                _change(decode(message.payload)),
                message.facts,
                images,
            )
        )
    if not heard:
        raise ValueError(
            f"round {number + 1} holds no message to attack: of its devices none sent "
            "one as it should, or none has a class of the validation images; lower "
            "federated.faults or raise data.validation_fraction"
        )
    return heard


def rebuilt(run: Finished, heard: Heard) -> Variables:
    """The net of a device after its training, as reconstructed by the eavesdropper."""
    assert heard.change is not None
    facts = heard.facts
    statistics = facts.stats if isinstance(facts, Facts) else facts
    return run.sharing.gathered(heard.reference, heard.change, statistics)


def kept_by(everybody: PyTree, device: int) -> PyTree:
    """One device's part of the state that all devices keep."""
    return jax.tree.map(lambda leaf: leaf[device], everybody)


def reference(run: Finished, state: Federation, device: int) -> Variables:
    """The net that a device trains from, as the eavesdropper knows it, see `Heard`."""
    method, server, topology = run.method, state.server, run.experiment.topology
    edge = jnp.int32(topology.edge_of_device[device])
    if method.has_cloud_net:
        return (method.begins or method.edge)(server, edge)
    neighbour = (device + 1) % topology.num_devices
    return method.device(method.send(server, edge), kept_by(state.own, neighbour))


def _change(update: PyTree) -> Variables | None:
    net = update.net if isinstance(update, Sent) else update
    return net if isinstance(net, Variables) else None


def _decoder(
    run: Finished, received: PyTree, own: PyTree, member: Member, key: Key
) -> Callable[[PyTree], PyTree]:
    """The decoder of the compression of the run's updates."""
    section = run.config.federated
    member = ordered(member, key)
    like = jax.eval_shape(run.method.train, received, own, member, key).update
    return compression(section.compression, keep=section.keep, like=like).decode


def _pairs(
    run: Finished, member: Member, device: int, rng: np.random.Generator, most: int
) -> Images:
    """As many images of the device as of the validation split, class by class."""
    size = int(member.data.size)
    images = np.asarray(member.data.images)[:size]
    labels = np.asarray(member.data.labels)[:size]
    held_images, held_labels = run.experiment.validation
    arrays = run.experiment.partition
    alike = np.ones(len(held_labels), bool)
    if "device_domains" in arrays:
        alike = arrays["validation_domains"] == arrays["device_domains"][device]
    chosen: list[tuple[int, int]] = []
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        held = rng.permutation(np.flatnonzero(alike & (held_labels == label)))
        chosen += zip(own, held, strict=False)
    pairs = rng.permutation(np.array(chosen, np.int64).reshape(-1, 2))[:most]
    return Images(images[pairs[:, 0]], held_images[pairs[:, 1]], labels[pairs[:, 0]])
