"""Loading SavedModels, whatever operations their graphs have."""

from typing import Any

import tensorflow as tf

# A graph that tokenises text has operations of TensorFlow Text, which importing it registers. TFX, TFMA and TensorFlow
# Serving do so themselves.
import tensorflow_text  # noqa: F401


def load(path: str) -> Any:
    """Returns what tf.saved_model.load gives for the folder `path`; raises what it raises."""
    return tf.saved_model.load(path)
