"""Images are moved and mirrored one by one, and nothing else happens to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.relay.augmentation import (
    NONE,
    Augmentation,
    augmented,
    flipped,
    shifted,
)

KEY = jax.random.key(0)
SIDE = (5, 4)


def numbered(batch):
    """Images of which every pixel is another."""
    pixels = np.arange(batch * 5 * 4 * 2, dtype=np.float32)
    return pixels.reshape(batch, *SIDE, 2)


def moved(image, down, right):
    """An image moved by whole pixels, its edges repeated."""
    rows = np.clip(np.arange(5) - down, 0, 4)
    columns = np.clip(np.arange(4) - right, 0, 3)
    return image[rows][:, columns]


def ways_of(images, after, ways):
    """Which of some ways each image went; it has to be one alone."""
    found = []
    for image, result in zip(images, np.asarray(after), strict=True):
        fits = [way for way, how in ways.items() if np.array_equal(how(image), result)]
        assert len(fits) == 1
        found += fits
    return found


@pytest.mark.parametrize("most", [1, 2])
def test_shifted_moves_whole_pixels_within_its_bound_and_repeats_edges(most):
    images = numbered(300)
    span = range(-most, most + 1)
    ways = {
        (down, right): lambda image, down=down, right=right: moved(image, down, right)
        for down in span
        for right in span
    }
    found = ways_of(images, shifted(jnp.asarray(images), KEY, most), ways)
    expected = 300 / len(ways)
    least = min(found.count(way) for way in ways)
    assert least > expected - 4 * np.sqrt(expected)


def test_flipped_mirrors_half_of_the_images_left_to_right():
    images = numbered(300)
    ways = {"as it was": lambda image: image, "mirrored": lambda image: image[:, ::-1]}
    found = ways_of(images, flipped(jnp.asarray(images), KEY), ways)
    assert 115 < found.count("mirrored") < 185  # four standard deviations


def test_an_image_may_be_moved_and_mirrored_in_all_combinations():
    images = numbered(300)
    span = range(-1, 2)
    ways = {
        (down, right, step): (
            lambda image, down=down, right=right, step=step: moved(image, down, right)[
                :, ::step
            ]
        )
        for down in span
        for right in span
        for step in (1, -1)
    }
    after = augmented(jnp.asarray(images), KEY, Augmentation(shift=1, flip=True))
    assert set(ways_of(images, after, ways)) == set(ways)


def test_nothing_is_changed_unless_it_is_asked_for():
    images = jnp.asarray(numbered(3))
    assert augmented(images, KEY, NONE) is images
    assert not NONE.changes
    assert Augmentation(shift=1).changes
    assert Augmentation(flip=True).changes


def test_stored_bytes_stay_bytes():
    images = jnp.asarray(numbered(3).astype(np.uint8))
    assert augmented(images, KEY, Augmentation(1, True)).dtype == jnp.uint8
