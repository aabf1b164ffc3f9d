"""Input noise of small images, one operation at a time against SciPy and NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from stillhouse.modules.tasks import image_noise as noise

SIDE = 8


@pytest.fixture(scope="module")
def images():
    chance = np.random.RandomState(0)
    found = ndimage.gaussian_filter(chance.uniform(size=(64, SIDE, SIDE)), (0, 0.7, 0.7))
    found = (found - found.min()) / (found.max() - found.min())
    return found.astype(np.float32)[..., None]


def moved(images, radians=0.0, shear=(0.0, 0.0), shift=(0.0, 0.0)):
    def each(value):
        return tf.fill([len(images)], tf.constant(value, tf.float32))

    found = noise._moved(tf.constant(images), each(radians), tuple(map(each, shear)), tuple(map(each, shift)))
    return found.numpy()[..., 0]


def test_a_shift_of_whole_pixels_moves_rows_and_columns(images):
    right, down = moved(images, shift=(1.0, 0.0)), moved(images, shift=(0.0, 2.0))
    np.testing.assert_allclose(right[:, :, 1:], images[:, :, :-1, 0], atol=1e-5)
    assert not right[:, :, 0].any()
    np.testing.assert_allclose(down[:, 2:], images[:, :-2, :, 0], atol=1e-5)


def test_a_quarter_turn_is_numpys(images):
    np.testing.assert_allclose(moved(images, radians=np.pi / 2), np.rot90(images[..., 0], axes=(1, 2)), atol=1e-4)


def test_rotation_and_shear_are_scipys_inside_of_the_frame(images):
    centre = (SIDE - 1) / 2
    for radians, (x, y) in ((0.3, (0.0, 0.0)), (0.0, (0.25, 0.0)), (0.0, (0.0, -0.2))):
        cosine, sine = np.cos(radians), np.sin(radians)
        turn, slant = np.array([[cosine, -sine], [sine, cosine]]), np.array([[1, x], [y, 1]])
        in_xy = slant @ turn
        matrix = in_xy[::-1, ::-1]  # SciPy counts rows first
        offset = centre - matrix @ [centre, centre]
        wanted = np.stack(
            [ndimage.affine_transform(one[..., 0], matrix, offset, order=1, mode="constant") for one in images]
        )
        inner = slice(2, -2)
        np.testing.assert_allclose(moved(images, radians, (x, y))[:, inner, inner], wanted[:, inner, inner], atol=1e-4)


def test_the_same_seed_gives_the_same_noise_and_magnitude_zero_gives_none(images):
    seed = tf.constant([3, 7])
    first = noise.random_augment(tf.constant(images), seed)
    np.testing.assert_array_equal(first, noise.random_augment(tf.constant(images), seed))
    other = noise.random_augment(tf.constant(images), tf.constant([3, 8]))
    assert np.abs(first - other).max() > 0.1
    np.testing.assert_allclose(noise.random_augment(tf.constant(images), seed, magnitude=0.0), images, atol=1e-5)
    assert first.numpy().min() >= 0
    assert first.numpy().max() <= 1


def test_every_operation_is_drawn_and_leaves_some_images_as_they_are(images):
    many = np.repeat(images[:1], 900, axis=0)
    found = noise.random_augment(tf.constant(many), tf.constant([1, 2]), operations=1, magnitude=0.8).numpy()
    kinds = {one.round(3).tobytes() for one in found}
    # One image for the identity, two for each operation with a sign; squares are erased in many places.
    assert len(kinds) > 2 * (noise.OPERATIONS - 2) + 1
    unchanged = np.mean([np.allclose(one, many[0], atol=1e-5) for one in found])
    assert unchanged == pytest.approx(1 / noise.OPERATIONS, abs=0.05)


def test_a_square_of_an_image_is_erased():
    white = tf.ones([2, SIDE, SIDE, 1])
    kept = noise._outside_of_square(tf.constant([3.0, 0.0]), tf.constant([[4.0, 2.5], [4.0, 4.0]]), SIDE)
    found = (white * kept).numpy()[..., 0]
    assert (found[0] == 0).sum() == 2 * 3 or (found[0] == 0).sum() == 3 * 3
    assert not found[0, 1:4, 3:5].any()
    assert found[1].all()
