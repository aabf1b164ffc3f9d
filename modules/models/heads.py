"""The meaning of a model's output: one class of several, several labels at once, a number, or masked tokens.

The names are those of `head` in the settings, plus the masked language model, the head of every pre-training job. All
code after `Head.logits` sees one kind of tensor per head.
"""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from stillhouse.modules.settings import MASKED


def class_logits(output: tf.Tensor) -> tf.Tensor:
    """Returns logits with one column per class, float32 [batch, classes], from a classifier's output.

    A binary model may have a single output z, whose sigmoid is the probability of class 1. Softmax over (0, z)
    is that sigmoid, so that all code after this function handles one kind of classifier.
    """
    output = tf.cast(output, tf.float32)
    if output.shape[-1] == 1:
        return tf.concat([tf.zeros_like(output), output], axis=-1)
    return output


def class_loss(labels: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Returns the cross-entropy with the true class, float32 [batch].

    With label smoothing ε the target is (1 − ε) · one-hot + ε / classes (Szegedy et al. 2016, section 7).

    Args:
      labels: int64 [batch].
      logits: float32 [batch, classes].
      smoothing: ε in [0, 1).
    """
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    if not smoothing:
        return loss
    uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
    return (1.0 - smoothing) * loss + smoothing * uniform


def multi_label_loss(labels: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Returns the binary cross-entropy, mean over the labels of an example, float32 [batch].

    Args:
      labels: int64 [batch, labels] of 0 and 1.
      logits: float32 [batch, labels].
      smoothing: ε in [0, 1); the target is (1 − ε) · label + ε / 2.
    """
    targets = (1.0 - smoothing) * tf.cast(labels, tf.float32) + smoothing / 2
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits), axis=-1)


def squared_loss(labels: tf.Tensor, outputs: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Returns the squared error, float32 [batch], of labels float32 [batch] and outputs float32 [batch, 1].

    A number has no smoothing; the argument exists because every head's loss has it.
    """
    return tf.square(labels - outputs[:, 0])


def masked_mean(values: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the mean over the positions that have a label, float32 [batch], of values float32 [batch, positions]."""
    present = tf.cast(labels >= 0, tf.float32)
    return tf.reduce_sum(present * values, axis=-1) / tf.maximum(tf.reduce_sum(present, axis=-1), 1.0)


def masked_loss(labels: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Returns the cross-entropy with the original tokens, averaged over the masked positions, float32 [batch].

    Args:
      labels: int64 [batch, positions], -1: not masked.
      logits: float32 [batch, positions, vocabulary].
      smoothing: as in `class_loss`.
    """
    return masked_mean(class_loss(tf.maximum(labels, 0), logits, smoothing), labels)


@dataclass(frozen=True)
class Head:
    """Interpretation of one kind of output."""

    name: str
    label_dtype: tf.DType
    label_rank: int  # of a batch of labels
    no_label: int | float  # placeholder for the label of an unlabelled example
    logits: Callable[[tf.Tensor], tf.Tensor]  # a network's output -> float32 [batch, outputs]
    hard_loss: Callable[..., tf.Tensor]  # (labels, logits, smoothing) -> float32 [batch]
    prediction_key: str  # name of the prediction in the serving signature
    prediction: Callable[[tf.Tensor], tf.Tensor]  # logits -> the served and evaluated prediction
    quality: str  # the metric reported during training, besides the loss
    quality_of: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # (labels, logits) -> float32 [batch]

    def width(self, outputs: int) -> int:
        """Returns the number of columns of the logits of a model with this many outputs."""
        return max(2, outputs) if self.name == "classification" else outputs

    def is_labelled(self, labels: tf.Tensor) -> tf.Tensor:
        """Returns bool [batch]: whether each example has a label."""
        if self.name == "regression":
            return tf.math.is_finite(labels)
        if self.name == "multi_label":
            return tf.reduce_all(labels >= 0, axis=-1)
        if self.name == MASKED:
            return tf.reduce_any(labels >= 0, axis=-1)
        return labels >= 0

    def of_examples(self, losses: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns a soft term per example, float32 [batch]; objectives return one per masked position."""
        return masked_mean(losses, labels) if self.name == MASKED else losses

    def safe_labels(self, labels: tf.Tensor) -> tf.Tensor:
        """Returns the labels with a harmless value for unlabelled examples, for losses that are masked afterwards."""
        if self.name == MASKED:  # its loss masks them itself
            return labels
        present = self.is_labelled(labels)
        mask = present[:, None] if self.label_rank == 2 else present
        return tf.where(mask, labels, tf.zeros_like(labels))


HEADS = {
    head.name: head
    for head in (
        Head(
            name="classification",
            label_dtype=tf.int64,
            label_rank=1,
            no_label=-1,
            logits=class_logits,
            hard_loss=class_loss,
            prediction_key="probabilities",
            prediction=tf.nn.softmax,
            quality="accuracy",
            quality_of=lambda labels, logits: tf.cast(tf.argmax(logits, axis=-1) == labels, tf.float32),
        ),
        Head(
            name="multi_label",
            label_dtype=tf.int64,
            label_rank=2,
            no_label=-1,
            logits=lambda output: tf.cast(output, tf.float32),
            hard_loss=multi_label_loss,
            prediction_key="probabilities",
            prediction=tf.nn.sigmoid,
            quality="accuracy",
            quality_of=lambda labels, logits: tf.reduce_mean(
                tf.cast((logits > 0) == (labels > 0), tf.float32), axis=-1
            ),
        ),
        Head(
            name="regression",
            label_dtype=tf.float32,
            label_rank=1,
            no_label=float("nan"),
            logits=lambda output: tf.cast(output, tf.float32),
            hard_loss=squared_loss,
            prediction_key="prediction",
            prediction=lambda outputs: outputs[:, 0],
            quality="mean_absolute_error",
            quality_of=lambda labels, outputs: tf.abs(labels - outputs[:, 0]),
        ),
        Head(
            name=MASKED,
            label_dtype=tf.int64,
            label_rank=2,
            no_label=-1,
            logits=lambda output: tf.cast(output, tf.float32),
            hard_loss=masked_loss,
            prediction_key="",  # it is not served
            prediction=tf.nn.softmax,
            quality="accuracy",
            quality_of=lambda labels, logits: masked_mean(
                tf.cast(tf.argmax(logits, axis=-1) == labels, tf.float32), labels
            ),
        ),
    )
}
