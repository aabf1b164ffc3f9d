"""A text's words without their order, for students of some ten thousand weights."""

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.text.reserved import PADDING


class Buckets(keras.layers.Layer):
    """Maps ids to a number of buckets, so that a small table serves a large vocabulary (the hashing trick).

    Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning". Padding stays 0.
    """

    def __init__(self, buckets: int, **more):
        """Stores the number of buckets, padding's own not counted."""
        super().__init__(**more)
        self._buckets = buckets

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Returns int64 of ids' shape, 0 for padding and 1 to `buckets` otherwise."""
        return tf.where(ids == PADDING, tf.zeros_like(ids), 1 + ids % self._buckets)


class BagOfIds(keras.layers.Layer):
    """A linear layer over the set of a text's ids, as a vector of zeros and equal numbers that has norm 1."""

    def __init__(self, ids: int, width: int, dropout: float = 0.0, **more):
        """Stores the sizes.

        Args:
          ids: number of ids, padding not counted; each has a row of the table.
          width: width of the output.
          dropout: fraction of a text's ids that training leaves out at random.
          more: arguments of Keras's layer.
        """
        super().__init__(**more)
        self._ids, self._width = ids, width
        self._dropout = keras.layers.Dropout(dropout)

    def build(self, shape):
        """Creates the table and the bias."""
        self._table = self.add_weight("table", [self._ids, self._width], initializer="glorot_uniform")
        self._bias = self.add_weight("bias", [self._width], initializer="zeros")
        super().build(shape)

    def call(self, ids: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Returns float32 [batch, width] of ids int64 [batch, length] from 0 (padding) to their number."""
        equal = ids[:, :, None] == ids[:, None, :]
        earlier = tf.linalg.band_part(tf.ones_like(equal[0], tf.float32), -1, 0) - tf.eye(tf.shape(ids)[1])
        is_first = ~tf.reduce_any(equal & (earlier > 0), axis=2) & (ids != PADDING)
        # What dropout scales up, the norm scales down again.
        present = self._dropout(tf.cast(is_first, self._table.dtype), training=training)
        total = tf.einsum("blw,bl->bw", tf.gather(self._table, tf.maximum(ids - 1, 0)), present)
        return tf.math.divide_no_nan(total, tf.norm(present, axis=1, keepdims=True)) + self._bias
