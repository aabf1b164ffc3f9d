"""The random generators of a network's layers, which Keras excludes from checkpoints."""

import tensorflow as tf
import tf_keras as keras

RANDOM_LAYER = keras.__internal__.layers.BaseRandomLayer


def generators_of(network: keras.Model) -> list[tf.random.Generator | None]:
    """Returns the generator of each layer that draws random numbers (dropout and the like); None: it has no state."""
    layers = (layer for layer in network.submodules if isinstance(layer, RANDOM_LAYER))
    return [layer._random_generator._generator for layer in layers]
