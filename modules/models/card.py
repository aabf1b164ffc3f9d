"""The model card inside a SavedModel: name, role, head, parameters, class names, training history."""

import json
import os

import tensorflow as tf

CARD = os.path.join("assets.extra", "stillhouse.json")  # a folder that TensorFlow Serving ignores


def write_card(saved_model: str, card: dict) -> None:
    """Writes `card` (JSON-able) into the SavedModel."""
    path = os.path.join(saved_model, CARD)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "w") as file:
        json.dump(card, file, indent=1, sort_keys=True)


def read_card(saved_model: str) -> dict:
    """Returns the card that `write_card` wrote."""
    with tf.io.gfile.GFile(os.path.join(saved_model, CARD)) as file:
        return json.load(file)
