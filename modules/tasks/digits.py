"""Handwritten digits, 8x8 grey pixels, ten classes."""

import tensorflow as tf
import tf_keras as keras

PIXELS = [f"pixel_{i:02d}" for i in range(64)]
LABEL = "label"
CLASSES = 10
BRIGHTEST = 16.0


def preprocessing_fn(inputs):
    """Stacks the 64 pixel columns (0..16) into an image [8, 8, 1] of 0..1."""
    pixels = tf.concat([tf.reshape(inputs[name], [-1, 1]) for name in PIXELS], axis=1)
    image = tf.reshape(tf.cast(pixels, tf.float32) / BRIGHTEST, [-1, 8, 8, 1])
    return {"image": image, LABEL: inputs[LABEL]}


def build_teacher(width: int = 32, dropout: float = 0.4) -> keras.Model:
    """Returns a convolutional net: two 3x3 layers of `width` and 2 `width` filters, one dense layer."""
    image = keras.Input([8, 8, 1], name="image")
    hidden = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(image)
    hidden = keras.layers.Conv2D(2 * width, 3, padding="same", activation="relu")(hidden)
    hidden = keras.layers.MaxPooling2D()(hidden)
    hidden = keras.layers.Flatten()(hidden)
    hidden = keras.layers.Dropout(dropout)(hidden)
    hidden = keras.layers.Dense(2 * width, activation="relu")(hidden)
    hidden = keras.layers.Dropout(dropout)(hidden)
    return keras.Model(image, keras.layers.Dense(CLASSES)(hidden))


def build_student(width: int = 8) -> keras.Model:
    """Returns a perceptron with one hidden layer of `width` units."""
    image = keras.Input([8, 8, 1], name="image")
    hidden = keras.layers.Dense(width, activation="relu")(keras.layers.Flatten()(image))
    return keras.Model(image, keras.layers.Dense(CLASSES)(hidden))
