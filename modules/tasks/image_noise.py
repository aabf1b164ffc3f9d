"""Input noise for small grey images, in the manner of RandAugment.

Cubuk et al. 2020, "RandAugment: Practical automated data augmentation with a reduced search space": a number of
operations, each drawn with equal chances, all with one magnitude. Operations on colours are left out, and those that
change what a small grey sign means (inverting, mirroring).
"""

import math

import tensorflow as tf

# At magnitude 1.
MOST_DEGREES = 30.0
MOST_SHEAR = 0.3
MOST_SHIFT = 0.2  # of the side
MOST_FACTOR = 0.9  # by which brightness and contrast change
MOST_ERASED = 0.4  # of the side of a square

IDENTITY, ROTATE, SHEAR_X, SHEAR_Y, SHIFT_X, SHIFT_Y, BRIGHTNESS, CONTRAST, ERASE = range(9)
OPERATIONS = 9


def random_augment(images: tf.Tensor, seed: tf.Tensor, operations: int = 2, magnitude: float = 0.5) -> tf.Tensor:
    """Returns the images after `operations` random operations each, float32 [batch, side, side, 1] in 0..1.

    Args:
      images: float32 [batch, side, side, 1] in 0..1, dark ground.
      seed: int32 [2]; the same seed, the same noise.
      operations: applied to each image one after the other, each drawn for each image.
      magnitude: of all operations, 0 to 1; the sign is drawn.
    """
    for number in range(operations):
        images = _one_operation(images, seed + tf.constant([0, 7919 * (number + 1)]), magnitude)
    return images


def _one_operation(images: tf.Tensor, seed: tf.Tensor, magnitude: float) -> tf.Tensor:
    count, side = tf.shape(images)[0], images.shape[1]
    seeds = tf.random.split(seed, 4)
    chosen = tf.random.stateless_uniform([count], seeds[0], 0, OPERATIONS, tf.int32)
    sign = 1.0 - 2.0 * tf.cast(tf.random.stateless_uniform([count], seeds[1], 0, 2, tf.int32), tf.float32)

    def amount(operation: int, most: float) -> tf.Tensor:
        """Float32 [batch]: of an operation where it is the one that was drawn, else 0."""
        return tf.where(chosen == operation, sign * magnitude * most, 0.0)

    images = _moved(
        images,
        radians=amount(ROTATE, math.radians(MOST_DEGREES)),
        shear=(amount(SHEAR_X, MOST_SHEAR), amount(SHEAR_Y, MOST_SHEAR)),
        shift=(amount(SHIFT_X, MOST_SHIFT * side), amount(SHIFT_Y, MOST_SHIFT * side)),
    )

    def factor(operation: int) -> tf.Tensor:
        return (1.0 + amount(operation, MOST_FACTOR))[:, None, None, None]

    mean = tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
    images = mean + factor(CONTRAST) * (images - mean)
    images = tf.clip_by_value(factor(BRIGHTNESS) * images, 0.0, 1.0)
    square = tf.abs(amount(ERASE, MOST_ERASED * side))
    return images * _outside_of_square(square, tf.random.stateless_uniform([count, 2], seeds[2], 0.0, side), side)


def _moved(images: tf.Tensor, radians: tf.Tensor, shear: tuple, shift: tuple) -> tf.Tensor:
    """Returns the images rotated, sheared and shifted about their centres; what comes in from outside is 0.

    Args:
      images: float32 [batch, side, side, 1].
      radians: float32 [batch].
      shear, shift: along x and y, float32 [batch] each; the shift in pixels.
    """
    side = images.shape[1]
    centre = (side - 1) / 2
    cosine, sine = tf.cos(radians), tf.sin(radians)
    # From places in the result to places in the image.
    xx, xy = cosine + shear[0] * sine, shear[0] * cosine - sine
    yx, yy = sine + shear[1] * cosine, cosine - shear[1] * sine
    zeros = tf.zeros_like(radians)
    matrices = tf.stack(
        [
            xx,
            xy,
            centre - centre * (xx + xy) - shift[0],
            yx,
            yy,
            centre - centre * (yx + yy) - shift[1],
            zeros,
            zeros,
        ],
        axis=1,
    )
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=matrices,
        output_shape=[side, side],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def _outside_of_square(length: tf.Tensor, centre: tf.Tensor, side: int) -> tf.Tensor:
    """Returns 0.0 inside of each image's square and 1.0 elsewhere, float32 [batch, side, side, 1].

    Args:
      length: of the square's sides, float32 [batch]; 0: no square.
      centre: of the square, x and y, float32 [batch, 2].
      side: of the images.
    """
    places = tf.range(side, dtype=tf.float32) + 0.5
    inside = tf.abs(places[None, None, :] - centre[:, :, None]) < length[:, None, None] / 2
    square = inside[:, 1, :, None] & inside[:, 0, None, :]
    return 1.0 - tf.cast(square, tf.float32)[..., None]
