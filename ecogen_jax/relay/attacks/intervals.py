"""Bootstrap intervals of what an attack achieves.

Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13: percentiles
of the statistic over samples drawn with replacement.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

LEVEL = 0.95
RESAMPLES = 1000

FALSE_POSITIVES = 0.01
"""The false positive rate at which true positives are counted."""

Scores = tuple[np.ndarray, np.ndarray]
"""Of members and of others, `[members]` and `[others]`: high for members."""


class Interval(NamedTuple):
    """A value, and where it lies with a probability of `LEVEL`."""

    value: float
    low: float
    high: float

    def columns(self, name: str) -> dict[str, float]:
        """For a table: `<name>`, `<name>_low` and `<name>_high`."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


class Found(NamedTuple):
    """How well members are told from others.

    Attributes:
      auc: area under the ROC curve; 0.5 is chance.
      tpr: share of members found where `FALSE_POSITIVES` of the others are taken for
        members; that much is chance.
    """

    auc: float
    tpr: float


def found(members: np.ndarray, others: np.ndarray) -> Found:
    """Area under the ROC curve, and true positives at few false ones.

    The area is `P(m > o) + P(m = o) / 2`. The threshold of the second is the lowest
    score that at most `FALSE_POSITIVES` of the others exceed: one that an attacker who
    knows images of his own could choose (Carlini et al., "Membership inference attacks
    from first principles", IEEE S&P 2022, section III).

    Args:
      members: scores `[members]`.
      others: scores `[others]`.
    """
    ordered = np.sort(others)
    below = np.searchsorted(ordered, members, side="left")
    up_to = np.searchsorted(ordered, members, side="right")
    allowed = int(FALSE_POSITIVES * len(ordered))
    threshold = ordered[len(ordered) - 1 - allowed]
    return Found(
        float(np.mean(below + up_to) / 2 / len(ordered)),
        float(np.mean(members > threshold)),
    )


def of_devices(
    scores: Sequence[Scores], rng: np.random.Generator, *, resamples: int = RESAMPLES
) -> tuple[Interval, Interval]:
    """Mean over devices of both figures of `found`, each with its interval.

    Devices are drawn with replacement, and images within a device, so the interval is
    for a device of such a federation; of a single device, for its images alone.

    Args:
      scores: of the images of each device.
      rng: source of randomness.
      resamples: how many samples are drawn.

    Returns:
      The area, and the true positives.
    """
    exact = np.array([found(*pair) for pair in scores])
    drawn = np.array(
        [
            [found(*(rng.choice(some, len(some)) for some in pair)) for pair in scores]
            for _ in range(resamples)
        ]
    )
    which = rng.integers(len(scores), size=(resamples, len(scores)))
    means = np.take_along_axis(drawn, which[..., None], axis=1).mean(axis=1)
    area, positives = (
        _percentiles(value, some)
        for value, some in zip(exact.mean(axis=0), means.T, strict=True)
    )
    return area, positives


def of_mean(
    values: Float[np.ndarray, " samples"],
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
) -> Interval:
    """The mean of independent values, with its interval."""
    drawn = rng.choice(values, (resamples, len(values))).mean(axis=1)
    return _percentiles(values.mean(), drawn)


def _percentiles(value: float, drawn: np.ndarray) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))
