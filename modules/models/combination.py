"""Combines several teachers into one: the ensemble's logits at a temperature.

The combined logits v are such that softmax(v / T) (or sigmoid(v / T)) is the combined distribution at T, so that every
objective sees one teacher. Hinton et al. 2015, section 2: the soft targets of an ensemble are the arithmetic or
geometric mean of its members' predictive distributions.
"""

from collections.abc import Sequence

import tensorflow as tf

COMBINATIONS = ("arithmetic", "geometric", "logits")


def _log_mean(log_probabilities: tf.Tensor, log_weights: tf.Tensor) -> tf.Tensor:
    return tf.reduce_logsumexp(log_probabilities + log_weights, axis=1)


def combine(
    teacher_logits: tf.Tensor, weights: Sequence[float], temperature: float, combination: str, head: str
) -> tf.Tensor:
    """Returns the ensemble's logits, float32 [batch, outputs].

    "arithmetic" is the weighted mean of the softened distributions. "geometric" is their weighted geometric mean,
    normalised again: softmax(sum_n w_n z_n / T). This equals the distribution of the mean logits, so "geometric" and
    "logits" are one computation. For regression every combination is the mean of the numbers.

    Args:
      teacher_logits: [batch, teachers, outputs].
      weights: one positive weight per teacher; they need not sum to 1.
      temperature: T > 0 at which to combine the distributions.
      combination: one of COMBINATIONS.
      head: classification, multi_label or regression.
    """
    if len(weights) == 1:
        return teacher_logits[:, 0]
    shares = tf.constant([weight / sum(weights) for weight in weights], shape=[1, len(weights), 1])
    if combination != "arithmetic" or head == "regression":
        return tf.reduce_sum(shares * teacher_logits, axis=1)
    softened = teacher_logits / temperature
    log_shares = tf.math.log(shares)
    if head == "multi_label":
        holds = _log_mean(tf.math.log_sigmoid(softened), log_shares)
        holds_not = _log_mean(tf.math.log_sigmoid(-softened), log_shares)
        return temperature * (holds - holds_not)
    # log of the mean distribution, shifted by the mean normaliser: logits are defined up to a constant, and with
    # this one N equal teachers give their own logits back, which matters to logit matching.
    # A log-softmax is the logits minus their normaliser.
    log_probabilities = tf.nn.log_softmax(softened)
    normaliser = tf.reduce_sum(shares * (softened - log_probabilities)[:, :, :1], axis=1)
    return temperature * (_log_mean(log_probabilities, log_shares) + normaliser)
