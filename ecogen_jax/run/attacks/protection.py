"""Local protection of an update, before a device sends it."""

from typing import NamedTuple

from ecogen_jax.relay.federated import privacy
from ecogen_jax.types import Key, PyTree


class Protection(NamedTuple):
    """Clipping and noise, see `relay.federated.privacy`.

    The federation itself adds noise to the mean, at the server: this does not protect
    updates against readers of the links to the server.

    Attributes:
      clip: largest norm; 0 leaves updates as they are.
      noise_multiplier: noise deviation over `clip`, added by a single device.
    """

    clip: float = 0.0
    noise_multiplier: float = 0.0

    @property
    def name(self) -> str:
        """For tables."""
        if not self.clip:
            return "none"
        return f"clip {self.clip:g}, noise {self.noise_multiplier:g}"

    def __call__(self, update: PyTree, key: Key) -> PyTree:
        """The update as it is sent."""
        if not self.clip:
            return update
        return privacy.noise(
            key,
            privacy.clip(update, self.clip),
            max_norm=self.clip,
            noise_multiplier=self.noise_multiplier,
            clients=1,
        )


NOTHING = Protection()
