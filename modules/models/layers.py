"""Finds layers of a network by name."""

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.errors import UserError


def layer_output(network: keras.Model, name: str, network_name: str) -> tf.Tensor:
    """Returns the symbolic output of the layer `name` of a functional model.

    Raises:
      UserError: the model has no such layer, or the layer has several outputs; the message has `network_name`.
    """
    layers = {layer.name: layer for layer in network.layers}
    if name not in layers:
        raise UserError(
            f"student.distillation.hints: found {name!r}; expected a layer of {network_name}: {', '.join(layers)}"
        )
    output = layers[name].output
    if not hasattr(output, "shape"):
        raise UserError(
            f"student.distillation.hints: layer {name!r} of {network_name} has several outputs; name one with a single "
            "output"
        )
    return output
