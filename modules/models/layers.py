"""Layers of a network by their names."""

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.errors import UserError


def layer_output(network: keras.Model, name: str, who: str) -> tf.Tensor:
    """Returns the symbolic output of the layer `name` of a functional model.

    Raises:
      UserError: it has no such layer, or the layer has several outputs; `who` names the network.
    """
    layers = {layer.name: layer for layer in network.layers}
    if name not in layers:
        raise UserError(f"student.distillation.hints: {who} has no layer {name!r}; it has: {', '.join(layers)}")
    output = layers[name].output
    if not hasattr(output, "shape"):
        raise UserError(
            f"student.distillation.hints: the layer {name!r} of {who} has several outputs; name one with one"
        )
    return output
