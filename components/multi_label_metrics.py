"""Metrics over several labels per example: the mean over all labels of all examples.

TFMA's own metrics BinaryAccuracy and AUC take one label per example; Keras' take any number. With the names below TFMA
uses Keras' metrics.
"""

import tf_keras as keras


class MultiLabelAccuracy(keras.metrics.BinaryAccuracy):
    """Fraction of labels predicted correctly, at a threshold of 0.5."""


class MultiLabelCrossentropy(keras.metrics.BinaryCrossentropy):
    """Binary cross-entropy, averaged over labels, in nats."""


class MultiLabelAUC(keras.metrics.AUC):
    """Area under the ROC curve over all pairs of example and label (micro-average)."""
