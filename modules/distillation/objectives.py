"""Objectives of distillation, per example, as plain functions of logits.

Symbols as in Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network" (2015): logits z, temperature T,
softened distribution p_i = exp(z_i / T) / sum_j exp(z_j / T) (their equation 1).
"""

import tensorflow as tf


def class_logits(logits: tf.Tensor) -> tf.Tensor:
    """Returns logits with one column per class, float32 [batch, classes], from a model's output.

    A binary model may have a single output z, whose sigmoid is the probability of class 1. Softmax over (0, z)
    is that sigmoid, so that everything after this function knows only one kind of head.
    """
    logits = tf.cast(logits, tf.float32)
    if logits.shape[-1] == 1:
        return tf.concat([tf.zeros_like(logits), logits], axis=-1)
    return logits


def softened_log_probabilities(logits: tf.Tensor, temperature: float) -> tf.Tensor:
    """Returns log softmax(z / T) over the last axis; shape as `logits`. Hinton et al. 2015, equation 1."""
    return tf.nn.log_softmax(logits / temperature, axis=-1)


def mean_softened_log_probabilities(teacher_logits: list[tf.Tensor], temperature: float) -> tf.Tensor:
    """Returns the log of the arithmetic mean of the teachers' softened distributions, [batch, classes].

    Hinton et al. 2015, section 3: the soft targets of an ensemble are the mean of its members' distributions.

    Args:
      teacher_logits: one [batch, classes] tensor per teacher.
      temperature: T > 0.
    """
    stacked = tf.stack([softened_log_probabilities(logits, temperature) for logits in teacher_logits])
    return tf.reduce_logsumexp(stacked, axis=0) - tf.math.log(float(len(teacher_logits)))


def hard_loss(labels: tf.Tensor, student_logits: tf.Tensor) -> tf.Tensor:
    """Returns the cross-entropy with the true class, float32 [batch]; `labels` int64 [batch]."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=student_logits)


def kl_divergence(teacher_log_probabilities: tf.Tensor, student_logits: tf.Tensor, temperature: float) -> tf.Tensor:
    """Returns T² · KL(teacher ‖ student) of the softened distributions, float32 [batch].

    The gradients of soft targets shrink as 1/T²; the factor T² keeps the balance of the soft and the hard term when
    T changes (Hinton et al. 2015, end of section 2).

    Args:
      teacher_log_probabilities: log of the softened teacher distribution, [batch, classes].
      student_logits: [batch, classes], not yet divided by T.
      temperature: T > 0.
    """
    student = softened_log_probabilities(student_logits, temperature)
    per_class = tf.math.multiply_no_nan(teacher_log_probabilities - student, tf.exp(teacher_log_probabilities))
    return temperature**2 * tf.reduce_sum(per_class, axis=-1)


def distillation_loss(
    labels: tf.Tensor, student_logits: tf.Tensor, teacher_logits: list[tf.Tensor], temperature: float, alpha: float
) -> tf.Tensor:
    """Returns (1 − α) · L_H + α · T² · KL, float32 [batch]: the hard loss at T = 1, the soft loss at T.

    Args:
      labels: int64 [batch].
      student_logits: [batch, classes].
      teacher_logits: one [batch, classes] tensor per teacher.
      temperature: T > 0, of both distributions in the soft term.
      alpha: weight of the soft term, in [0, 1].
    """
    soft = kl_divergence(mean_softened_log_probabilities(teacher_logits, temperature), student_logits, temperature)
    return (1.0 - alpha) * hard_loss(labels, student_logits) + alpha * soft
