"""One head per teacher, trained on that teacher and the labels; the heads' outputs are combined at inference.

Yang et al. 2020, "Model Compression with Two-stage Multi-teacher Knowledge Distillation for Web Question Answering
System" (TMKD), section 3.3: the student keeps the teachers' predictions apart, instead of averaging them first, and the
heads' outputs are averaged at inference.
"""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.models.combination import combine
from stillhouse.modules.models.heads import Head


def with_heads(network: keras.Model, heads: int) -> keras.Model:
    """Returns the network with its last layer replaced by `heads` layers like it, their outputs concatenated.

    Args:
      network: a functional model with one output [batch, outputs] of one layer.
      heads: the number of heads.
    """
    last = network.output.node.layer
    (into,) = network.output.node.keras_inputs
    config = last.get_config()
    outputs = [type(last).from_config(config | {"name": f"{last.name}_{n}"})(into) for n in range(1, heads + 1)]
    return keras.Model(network.inputs, keras.layers.Concatenate(name="heads")(outputs))


def logits_of_heads(output: tf.Tensor, head: Head, heads: int) -> tf.Tensor:
    """Returns logits, float32 [batch, heads, columns], of the output of `with_heads`, [batch, heads * outputs]."""
    return tf.stack([head.logits(part) for part in tf.split(output, heads, axis=-1)], axis=1)


def combined_heads(output: tf.Tensor, head: Head, weights: Sequence[float], combination: str) -> tf.Tensor:
    """Returns the logits of all heads together at T = 1, float32 [batch, columns], of the output of `with_heads`."""
    return combine(logits_of_heads(output, head, len(weights)), weights, 1.0, combination, head.name)


class CombinedHeads(keras.layers.Layer):
    """Combines all heads into one output at inference."""

    def __init__(self, head: Head, weights: Sequence[float], combination: str):
        """Stores the head that defines the outputs' meaning, the teachers' weights and their combination."""
        super().__init__(name="combined_heads")
        self._head = head
        self._shares = list(weights)
        self._combination = combination

    def call(self, output: tf.Tensor) -> tf.Tensor:
        """Returns logits, float32 [batch, columns], of the concatenated outputs of all heads."""
        return combined_heads(output, self._head, self._shares, self._combination)
