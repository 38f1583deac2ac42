"""The inputs of a protocol: training data, label counts, and sizes of its parts."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ecogen_jax.data.partition import Held
from ecogen_jax.nets.functional import Net, Variables
from ecogen_jax.relay import learn
from ecogen_jax.relay.distillers.base import Distiller
from ecogen_jax.relay.ensemble import Teachers, ensemble, log_priors
from ecogen_jax.relay.federated.base import Method
from ecogen_jax.relay.federated.engine import Engine
from ecogen_jax.relay.federated.schedule import Schedule
from ecogen_jax.relay.parties import TIERS, Nets, Topology


class LearnSettings(NamedTuple):
    """Size of a supervised or receiving phase: see `learn.learner`."""

    rounds: int
    steps: int
    learner: learn.Learner


class HopSettings(NamedTuple):
    """Size of a hop.

    Attributes:
      rounds: rounds of the hop.
      steps: generator steps in a round.
      distiller: built for the hop's nets.
      nets: of the teachers, one for each group of `Teachers`.
      weigh: maps the label counts behind the teachers to their weights, both
        `[teachers, classes]`.
      keeps_generator: whether the distiller leaves a generator that can be replayed.
      by_class: whether teachers are combined class by class, with prior-adjusted logits
        and statistics under their own label mix.
    """

    rounds: int
    steps: int
    distiller: Distiller
    nets: tuple[Net, ...]
    weigh: Callable[[jax.Array], jax.Array]
    keeps_generator: bool
    by_class: bool = False

    def teachers(
        self, groups: tuple[Variables, ...], counts: jax.Array, taught: Sequence[bool]
    ) -> Teachers:
        """The teachers of each party that trains.

        Args:
          groups: see `Teachers`, `[trainers, members, ...]`.
          counts: images of each class behind each teacher,
            `[trainers, teachers, classes]`.
          taught: which teachers were trained from scratch by a hop, `[teachers]`. Their
            generated images have equal shares of all classes that their teachers knew,
            so they have no prior.
        """
        seen = jnp.where(jnp.asarray(taught)[:, None], 0, counts)
        priors = jax.vmap(log_priors)(seen) if self.by_class else None
        return Teachers(groups, jax.vmap(self.weigh)(counts), priors)

    def together(self, teachers: Teachers, images: jax.Array) -> jax.Array:
        """Logits of one party's teachers, combined class by class, `[batch, classes]`.

        Args:
          teachers: of the party.
          images: `[batch, height, width, channels]` in [0, 1]. Their labels are not
            known, by which a distiller may combine teachers: see `relay/ensemble.py`.
        """
        return ensemble(self.nets, teachers, images).logits


class ReplaySettings(NamedTuple):
    """The images that a device generates before it fine-tunes.

    Attributes:
      size: number of images.
      latent_size: length of the generator's noise vector.
    """

    size: int
    latent_size: int


class Evidence(NamedTuple):
    """Number of training images behind each party, by class.

    Attributes:
      public: the cloud's training images, `[classes]`.
      private: each device's, `[devices, classes]`.
    """

    public: np.ndarray
    private: np.ndarray


class Images(NamedTuple):
    """Training data.

    Attributes:
      public: the cloud's, with a leading party axis of length 1 on every leaf.
      private: the devices'.
    """

    public: learn.Data
    private: Held


class Leg(NamedTuple):
    """One hop of a route.

    Attributes:
      sender: the tier of the teachers.
      receiver: the tier of the students.
      returns: whether the receiver continues from a net that it already has. This net
        is then also one of its teachers. Always false downwards, where the sender
        trains, and all receivers get the same student.
      generator: the tier that made the generator with which the training party
        continues: its own tier, or the tier that sent it and has trained no other
        since; "" for a new generator.
    """

    sender: str
    receiver: str
    returns: bool
    generator: str = ""

    @property
    def trainer(self) -> str:
        """The tier that trains: the sender downwards, the receiver upwards."""
        return self.sender if self.direction == "down" else self.receiver

    @property
    def direction(self) -> str:
        """`up` (towards the cloud) or `down`."""
        rises = TIERS.index(self.sender) > TIERS.index(self.receiver)
        return "up" if rises else "down"

    @property
    def stage(self) -> str:
        """Name of its stage, such as `down/cloud_edge`."""
        return f"{self.direction}/{self.sender}_{self.receiver}"

    @property
    def links(self) -> tuple[str, ...]:
        """The links that its messages cross, in order; a direct hop has both."""
        first, last = sorted(map(TIERS.index, (self.sender, self.receiver)))
        links = ("cloud_edge", "edge_end")[first:last]
        return links if self.direction == "down" else links[::-1]


class Route(NamedTuple):
    """One pass of hops, and the stages before it.

    Attributes:
      start: names of the stages that train the first senders, one for each kind of
        their nets; none if the senders come from another run.
      baselines: names of the baselines of the first hop.
      images: images of other datasets, by the baseline that is trained on them, uint8
        `[size, height, width, channels]`.
      legs: the hops in order.
    """

    start: tuple[str, ...]
    baselines: tuple[str, ...]
    images: Mapping[str, np.ndarray]
    legs: tuple[Leg, ...]


class FederatedSettings(NamedTuple):
    """A federation.

    Attributes:
      rounds: communication rounds.
      evaluate_every: see `stage.Stage`.
      num_edges: edges between the cloud and the devices.
      method: what server and devices do.
      engine: the method as a protocol.
      plan: the devices and faults of each round.
    """

    rounds: int
    evaluate_every: int
    num_edges: int
    method: Method
    engine: Engine
    plan: Schedule


class Settings(NamedTuple):
    """All inputs of a protocol.

    Attributes:
      nets: the classifiers of each tier.
      topology: how many parties there are.
      images: the cloud's public and the devices' private training images.
      evidence: label counts of both.
      learning: sizes of the training phases, by the name of their stage.
      hops: sizes of the hops, by the name of their stage.
      replay: how devices replay the received generator, in a relay cycle.
      route: of the protocol `hops`.
      federated: of a federated protocol, or None.
    """

    nets: Nets
    topology: Topology
    images: Images
    evidence: Evidence
    learning: Mapping[str, LearnSettings]
    hops: Mapping[str, HopSettings]
    replay: ReplaySettings
    route: Route
    federated: FederatedSettings | None = None
