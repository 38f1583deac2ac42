"""What a protocol is built from: training data, evidence, and the size of each part."""

from typing import NamedTuple

import numpy as np

from ecogen_jax.relay import learn
from ecogen_jax.relay.distillers.base import Distiller


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
    """

    rounds: int
    steps: int
    distiller: Distiller


class ReplaySettings(NamedTuple):
    """What a device generates before it fine-tunes.

    Attributes:
      size: number of images.
      latent_size: length of the generator's noise vector.
    """

    size: int
    latent_size: int


class Evidence(NamedTuple):
    """The images behind each party's knowledge, by class.

    Attributes:
      public: the cloud's training images, `[classes]`.
      private: each device's, `[devices, classes]`.
    """

    public: np.ndarray
    private: np.ndarray


class Images(NamedTuple):
    """Training data, with a leading party axis on every leaf."""

    public: learn.Data
    private: learn.Data
