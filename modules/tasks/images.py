"""Classifies small grey images whose pixels are the columns of a table; classes are numbers or names.

For your own images, set the columns' prefix, and the networks' side and classes:

  preprocessing: {pixels: pixel_, brightest: 16.0}
  teachers: [{hyperparameters: {side: 8, classes: 10}}]

Teacher and student are the same residual network (He et al. 2016), with model noise: dropout before the last layer, and
stochastic depth (Huang et al. 2016).
"""

import math
import re

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras

from stillhouse.modules.errors import UserError
from stillhouse.modules.tasks.image_noise import random_augment

IMAGE = "image"
NOISE_OPERATIONS, NOISE_MAGNITUDE = 2, 0.5


def preprocessing_fn(inputs, custom_config):
    """Stacks the columns whose names are `pixels` and a number into an image [side, side, 1] of 0..1.

    Args:
      inputs: raw columns.
      custom_config: `label`, name of the label column; `preprocessing`: {pixels: common prefix of the columns,
        brightest: the value that becomes 1}.

    Raises:
      UserError: no column has the prefix, or their number is not a square.
    """
    settings, label = custom_config["preprocessing"], custom_config["label"]
    prefix = settings.get("pixels", "pixel_")
    numbered = {int(name[len(prefix) :]): name for name in inputs if re.fullmatch(re.escape(prefix) + r"\d+", name)}
    side = math.isqrt(len(numbered))
    if not numbered or side * side != len(numbered):
        raise UserError(
            f"preprocessing.pixels: found {len(numbered)} columns {prefix}0, {prefix}1, ...; expected a square number, "
            "for a square image"
        )
    columns = [tf.reshape(tf.cast(inputs[numbered[number]], tf.float32), [-1, 1]) for number in sorted(numbered)]
    image = tf.reshape(tf.concat(columns, axis=1) / settings.get("brightest", 255.0), [-1, side, side, 1])
    classes = tf.reshape(inputs[label], [-1])
    if classes.dtype == tf.string:
        classes = tft.compute_and_apply_vocabulary(classes, vocab_filename=label)
    return {IMAGE: image, label: classes}


def augment(features, seed):
    """Augments a batch of training inputs by random operations; seed: int32 [2]."""
    return features | {IMAGE: random_augment(features[IMAGE], seed, NOISE_OPERATIONS, NOISE_MAGNITUDE)}


def _network(side: int, classes: int, width: int, blocks: int, dropout: float, survival: float) -> keras.Model:
    image = keras.Input([side, side, 1], name=IMAGE)
    hidden = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(image)
    for block in range(2 * blocks):
        if block == blocks:
            hidden = keras.layers.Conv2D(2 * width, 3, strides=2, padding="same", activation="relu")(hidden)
        branch = keras.layers.Conv2D(hidden.shape[-1], 3, padding="same", activation="relu")(hidden)
        branch = keras.layers.Conv2D(hidden.shape[-1], 3, padding="same")(branch)
        # Huang et al. 2016, section 3: deeper blocks survive less often. Dropping the whole branch of an example is
        # dropout with one draw for all of it.
        lost = (block + 1) / (2 * blocks) * (1.0 - survival)
        branch = keras.layers.Dropout(lost, noise_shape=[None, 1, 1, 1])(branch)
        hidden = keras.layers.ReLU()(keras.layers.Add()([hidden, branch]))
    hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    hidden = keras.layers.Dropout(dropout)(hidden)
    return keras.Model(image, keras.layers.Dense(classes)(hidden))


def build_teacher(
    side: int, classes: int, width: int = 16, blocks: int = 1, dropout: float = 0.0, survival: float = 1.0
) -> keras.Model:
    """Returns a residual network of 2 * `blocks` blocks, by default without noise.

    Args:
      side: side of the images, in pixels.
      classes: number of classes.
      width: filters of the first half of the blocks; the second half has twice as many on half the side.
      blocks: blocks in each half.
      dropout: fraction of the last hidden units to drop.
      survival: probability that the last block takes part in a training step; earlier ones take part more often.
    """
    return _network(side, classes, width, blocks, dropout, survival)


def build_student(
    side: int, classes: int, width: int = 16, blocks: int = 1, dropout: float = 0.5, survival: float = 0.8
) -> keras.Model:
    """Returns the same network with noise; dropout and survival as in Noisy Student (Xie et al. 2020, section 3.1)."""
    return _network(side, classes, width, blocks, dropout, survival)
