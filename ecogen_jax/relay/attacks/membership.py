"""Membership inference: is this image in the training data of a device?

Every attack gives an image a score; a high score means member. The attacker knows the
image and its label. Shadow models are not needed, because the attacker compares with
nets and values that were sent on the links.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.distance import cdist
from scipy.special import log_softmax

Logits = Float[np.ndarray, "images classes"]
Features = Float[np.ndarray, "images features"]
Labels = Int[np.ndarray, " images"]
Score = Float[np.ndarray, " images"]


def low_loss(logits: Logits, labels: Labels) -> Score:
    """Loss attack: minus the cross-entropy of the trained net.

    The threshold attack of Yeom et al., "Privacy risk in machine learning: analyzing
    the connection to overfitting", CSF 2018, adversary 2.

    Args:
      logits: of the net.
      labels: of the images.
    """
    return log_softmax(logits, axis=1)[np.arange(len(labels)), labels]


def lower_loss(logits: Logits, reference: Logits, labels: Labels) -> Score:
    """How much less the net's cross-entropy is than that of the net it came from.

    The calibrated loss attack: an image that is easy for both nets gets no high score.
    Difficulty calibration of Watson et al., "On the importance of difficulty
    calibration in membership inference attacks", ICLR 2022, with the broadcast net in
    place of shadow models.

    Args:
      logits: of the net that trained.
      reference: logits of the net before.
      labels: of the images.
    """
    return low_loss(logits, labels) - low_loss(reference, labels)


def near_mean(
    logits: Logits, labels: Labels, means: Float[np.ndarray, "rows classes"]
) -> Score:
    """Minus the distance of an image's logits to the mean that was sent for its class.

    Args:
      logits: of a net that the attacker has.
      labels: of the images.
      means: a row for each class.
    """
    return -np.linalg.norm(logits - means[labels], axis=1)


def near_made(features: Features, made: Float[np.ndarray, "made features"]) -> Score:
    """Minus the distance to the nearest output of a generator.

    The black-box attack of Chen et al., "GAN-Leaks: a taxonomy of membership inference
    attacks against generative models", CCS 2020, section 5.2.

    Args:
      features: of the images, or the images, in the space that the generator fills.
      made: its outputs for the class of the images.
    """
    return -cdist(features, made).min(axis=1)


def many_made(features: Features, made: Float[np.ndarray, "made features"]) -> Score:
    """Share of a generator's outputs near an image; needs no discriminator.

    "Near" is within the median distance of an image to its nearest output. Hilprecht
    et al., "Monte Carlo and reconstruction membership inference attacks against
    generative models", PoPETs 2019, section 4.1.

    Args:
      features: as in `near_made`, of all images that are judged together.
      made: likewise.
    """
    distances = cdist(features, made)
    return np.mean(distances <= np.median(distances.min(axis=1)), axis=1)
