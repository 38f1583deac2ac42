"""FedGen's published sizes, and generated data for the plain versions.

The sizes are also in `ecogen_jax.config_presets.federated`, which the plain versions
cannot import; `tests/test_benchmarks.py` checks that both agree. Imports at most NumPy.
"""

import numpy as np

DEVICES, ACTIVE = 20, 10
STEPS, BATCH = 20, 32
LEARNING_RATE, LEARNING_DECAY = 0.01, 0.99

CHANNELS, FEATURES, CLASSES = (6, 16), 32, 10
NOISE, HIDDEN = 32, 256
GENERATOR_STEPS, GENERATOR_BATCH = 50, 32
GENERATOR_RATE, GENERATOR_DECAY, WEIGHT_DECAY = 3e-4, 0.98, 0.01
GUIDANCE = 10.0
"""Weight of both terms of the generator on devices; it falls by `GENERATOR_DECAY`."""

IMAGES = 750
"""Of each device: 15,000, shared by 20. Nobody's time depends on the skew."""


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 `[devices, images, 28, 28, 1]`, labels, and counts by class."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (DEVICES, IMAGES, 28, 28, 1), np.uint8)
    labels = rng.integers(0, CLASSES, (DEVICES, IMAGES), np.int32)
    counts = [np.bincount(each, minlength=CLASSES) for each in labels]
    return images, labels, np.stack(counts).astype(np.float32)
