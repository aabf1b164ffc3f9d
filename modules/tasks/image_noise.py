"""Input noise for small grey images, in the manner of RandAugment.

Cubuk et al. 2020, "RandAugment: Practical automated data augmentation with a reduced search space": a number of
operations, each drawn with equal probability, all with one magnitude. Operations on colours are omitted, and those that
change the meaning of a small grey sign (inverting, mirroring).
"""

import math

import tensorflow as tf

# At magnitude 1.
MAX_DEGREES = 30.0
MAX_SHEAR = 0.3
MAX_SHIFT = 0.2  # fraction of the image's side
MAX_FACTOR = 0.9  # change of brightness and contrast
MAX_ERASED = 0.4  # side of the square, as a fraction of the image's

IDENTITY, ROTATE, SHEAR_X, SHEAR_Y, SHIFT_X, SHIFT_Y, BRIGHTNESS, CONTRAST, ERASE = range(9)
OPERATIONS = 9


def random_augment(images: tf.Tensor, seed: tf.Tensor, operations: int = 2, magnitude: float = 0.5) -> tf.Tensor:
    """Returns the images after `operations` random operations each, float32 [batch, side, side, 1] in 0..1.

    Args:
      images: float32 [batch, side, side, 1] in 0..1, with a dark background.
      seed: int32 [2]; the same seed gives the same noise.
      operations: number of operations, drawn for each image and applied in sequence.
      magnitude: magnitude of all operations, 0 to 1; the sign is random.
    """
    for number in range(operations):
        images = _one_operation(images, seed + tf.constant([0, 7919 * (number + 1)]), magnitude)
    return images


def _one_operation(images: tf.Tensor, seed: tf.Tensor, magnitude: float) -> tf.Tensor:
    count, side = tf.shape(images)[0], images.shape[1]
    seeds = tf.random.split(seed, 4)
    chosen = tf.random.stateless_uniform([count], seeds[0], 0, OPERATIONS, tf.int32)
    sign = 1.0 - 2.0 * tf.cast(tf.random.stateless_uniform([count], seeds[1], 0, 2, tf.int32), tf.float32)

    def amount(operation: int, maximum: float) -> tf.Tensor:
        """Returns the amount of an operation for images that drew it, 0 for the others, float32 [batch]."""
        return tf.where(chosen == operation, sign * magnitude * maximum, 0.0)

    images = _moved(
        images,
        radians=amount(ROTATE, math.radians(MAX_DEGREES)),
        shear=(amount(SHEAR_X, MAX_SHEAR), amount(SHEAR_Y, MAX_SHEAR)),
        shift=(amount(SHIFT_X, MAX_SHIFT * side), amount(SHIFT_Y, MAX_SHIFT * side)),
    )

    def factor(operation: int) -> tf.Tensor:
        return (1.0 + amount(operation, MAX_FACTOR))[:, None, None, None]

    mean = tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
    images = mean + factor(CONTRAST) * (images - mean)
    images = tf.clip_by_value(factor(BRIGHTNESS) * images, 0.0, 1.0)
    square = tf.abs(amount(ERASE, MAX_ERASED * side))
    return images * _outside_of_square(square, tf.random.stateless_uniform([count, 2], seeds[2], 0.0, side), side)


def _moved(images: tf.Tensor, radians: tf.Tensor, shear: tuple, shift: tuple) -> tf.Tensor:
    """Returns the images rotated, sheared and shifted about their centres; pixels from outside are 0.

    Args:
      images: float32 [batch, side, side, 1].
      radians: float32 [batch].
      shear, shift: along x and y, float32 [batch] each; the shift in pixels.
    """
    side = images.shape[1]
    centre = (side - 1) / 2
    cosine, sine = tf.cos(radians), tf.sin(radians)
    # From coordinates in the result to coordinates in the image.
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
      length: length of the square's sides, float32 [batch]; 0: no square.
      centre: centre of the square, x and y, float32 [batch, 2].
      side: side of the images.
    """
    pixel_centres = tf.range(side, dtype=tf.float32) + 0.5
    inside = tf.abs(pixel_centres[None, None, :] - centre[:, :, None]) < length[:, None, None] / 2
    square = inside[:, 1, :, None] & inside[:, 0, None, :]
    return 1.0 - tf.cast(square, tf.float32)[..., None]
