"""A head for each teacher: it learns from that teacher and the labels; all of them together answer.

Yang et al. 2020, "Model Compression with Two-stage Multi-teacher Knowledge Distillation for Web Question Answering
System" (TMKD), section 3.3: the student keeps what each teacher says apart, instead of averaging it first, and the
heads' answers are averaged at inference.
"""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.models.combination import combine
from stillhouse.modules.models.heads import Head


def with_heads(network: keras.Model, heads: int) -> keras.Model:
    """Returns the network with `heads` layers like its last one in the place of that, their outputs side by side.

    Args:
      network: functional, its output that of one layer; [batch, outputs].
      heads: their number.
    """
    last = network.output.node.layer
    (into,) = network.output.node.keras_inputs
    config = last.get_config()
    outputs = [type(last).from_config(config | {"name": f"{last.name}_{n}"})(into) for n in range(1, heads + 1)]
    return keras.Model(network.inputs, keras.layers.Concatenate(name="heads")(outputs))


def logits_of_heads(output: tf.Tensor, head: Head, heads: int) -> tf.Tensor:
    """Returns logits, float32 [batch, heads, columns], of what `with_heads` gives, [batch, heads * outputs]."""
    return tf.stack([head.logits(part) for part in tf.split(output, heads, axis=-1)], axis=1)


class CombinedHeads(keras.layers.Layer):
    """All heads as one, at inference."""

    def __init__(self, head: Head, weights: Sequence[float], combination: str):
        """Takes what the outputs mean, and the teachers' weights and how they are combined."""
        super().__init__(name="combined_heads")
        self._head = head
        self._shares = list(weights)
        self._combination = combination

    def call(self, output: tf.Tensor) -> tf.Tensor:
        """Returns logits, float32 [batch, columns], of the outputs of all heads side by side."""
        of_heads = logits_of_heads(output, self._head, len(self._shares))
        return combine(of_heads, self._shares, 1.0, self._combination, self._head.name)
