"""Metrics over labels that may hold together: the mean over all labels of all examples.

TFMA has metrics of its own under the names BinaryAccuracy and AUC, which take one label per example; Keras' take any
number. Under these names TFMA finds Keras'.
"""

import tf_keras as keras


class MultiLabelAccuracy(keras.metrics.BinaryAccuracy):
    """Share of labels that are told right, at a threshold of 0.5."""


class MultiLabelCrossentropy(keras.metrics.BinaryCrossentropy):
    """Binary cross-entropy, mean over labels, in nats."""


class MultiLabelAUC(keras.metrics.AUC):
    """Area under the ROC curve over all pairs of example and label (micro-average)."""
