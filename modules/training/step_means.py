"""Means over the examples of an epoch, all in one variable."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras


class StepMeans(keras.metrics.Metric):
    """Weighted means of several quantities.

    A Keras Mean for each of them costs some ten operations a step, which is as long as the step of a small model.
    """

    def __init__(self, names: Sequence[str]):
        super().__init__(name="means")
        self._names = list(names)
        self._sums = self.add_weight("sums", shape=[2, len(self._names)], initializer="zeros")

    def update_state(self, totals: dict[str, tf.Tensor], counts: dict[str, tf.Tensor]) -> tf.Operation:
        """Adds a batch: for each name the weighted sum of its values and the sum of the weights, float32 scalars."""
        rows = [[part[name] for name in self._names] for part in (totals, counts)]
        return self._sums.assign_add(tf.stack([tf.stack(row) for row in rows]))

    def reset_state(self) -> None:
        """Resets the sums, as Keras requires at the beginning of an epoch."""
        self._sums.assign(tf.zeros_like(self._sums))

    def value_of(self) -> tf.Tensor:
        """Returns the sums and counts, float32 [2, names], over all replicas."""
        return tf.convert_to_tensor(self._sums)

    def assign(self, value: tf.Tensor) -> None:
        """Puts back what `value_of` gave."""
        self._sums.assign(value)

    def result(self) -> dict[str, tf.Tensor]:
        """Returns the mean of each name, float32 scalars; 0 where nothing was counted."""
        sums = tf.convert_to_tensor(self._sums)
        means = tf.unstack(tf.math.divide_no_nan(sums[0], sums[1]), len(self._names))
        return dict(zip(self._names, means, strict=True))
