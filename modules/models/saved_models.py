"""Loads SavedModels, including those with operations of TensorFlow Text."""

from typing import Any

import tensorflow as tf

# A graph that tokenises text has operations of TensorFlow Text, which importing it registers. TFX, TFMA and TensorFlow
# Serving do so themselves.
import tensorflow_text  # noqa: F401


def load(path: str) -> Any:
    """Returns the result of tf.saved_model.load for the folder `path`, with its exceptions."""
    return tf.saved_model.load(path)
