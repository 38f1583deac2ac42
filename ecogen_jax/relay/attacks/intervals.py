"""Intervals of attack metrics: t-intervals over devices or pairs of devices.

Student, "The probable error of a mean", Biometrika 1908: the mean of `n` independent
normal values lies within

    mean +- t(0.975, n - 1) s / sqrt(n)

with a probability of 95 %, where `s` is their standard deviation, with `n - 1` in the
denominator, and `t(p, k)` the quantile of Student's distribution of `k` degrees of
freedom. For few values a bootstrap is too narrow: of four it holds the mean in 80 %.

The membership of the images of a single device is bootstrapped over these images.
Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13: percentiles
of the statistic over samples drawn with replacement.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

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
    """How well members are distinguished from non-members.

    Attributes:
      auc: area under the ROC curve; 0.5 is chance.
      tpr: true positive rate at a false positive rate of `FALSE_POSITIVES`, which is
        also the chance level.
    """

    auc: float
    tpr: float


def found(members: np.ndarray, others: np.ndarray) -> Found:
    """Area under the ROC curve, and true positive rate at a low false positive rate.

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

    For several devices it is a t-interval over their values, which includes the
    variance due to their images; a bootstrap of ten devices would be a tenth too
    narrow. It has no width if all devices have the same value. For a single device, its
    images are bootstrapped.

    Args:
      scores: of the images of each device.
      rng: source of randomness.
      resamples: how many samples of a single device are drawn.

    Returns:
      The area, and the true positives.
    """
    exact = np.array([found(*pair) for pair in scores])
    if len(scores) > 1:
        area, positives = (_of_share(values) for values in exact.T)
        return area, positives
    ((members, others),) = scores
    drawn = np.array(
        [
            found(rng.choice(members, len(members)), rng.choice(others, len(others)))
            for _ in range(resamples)
        ]
    )
    area, positives = (
        _percentiles(value, some) for value, some in zip(exact[0], drawn.T, strict=True)
    )
    return area, positives


def of_mean(values: Float[np.ndarray, " samples"]) -> Interval:
    """The mean of independent values with its t-interval, see the module.

    Args:
      values: of which there is at least one.

    Returns:
      The mean and `mean +- t(0.975, n - 1) s / sqrt(n)`. The ends are NaN for a single
      value, which says nothing about the spread.
    """
    value, count = float(values.mean()), len(values)
    if count < 2:
        return Interval(value, math.nan, math.nan)
    deviation = float(values.std(ddof=1))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * deviation / count**0.5
    return Interval(value, value - reach, value + reach)


def _of_share(shares: np.ndarray) -> Interval:
    """The mean of independent shares with its t-interval, inside [0, 1]."""
    value, *ends = of_mean(shares)
    low, high = np.clip(ends, 0.0, 1.0)
    return Interval(value, float(low), float(high))


def _percentiles(value: float, drawn: np.ndarray) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))
