"""What the teachers say about the training inputs, and how far the trained student follows them there."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.cluster.spec import is_chief
from stillhouse.modules.models.autograph import needs_autograph
from stillhouse.modules.models.combination import combine
from stillhouse.modules.models.heads import MASKED, Head
from stillhouse.modules.models.teachers import LOGITS
from stillhouse.modules.training.build import BuiltTraining
from stillhouse.modules.training.input_sample import LABELLED, UNLABELLED, files_by_kind, sampled_batches
from stillhouse.modules.training.learner import Learner
from stillhouse.modules.training.plan import TrainingPlan
from stillhouse.modules.training.validation import combined_logits

# Inputs of each kind that are looked at: this fraction of the training job's forward passes, within these limits.
FRACTION = 0.02
MIN_INPUTS, MAX_INPUTS = 1000, 10_000
# Predictions that differ by less than this from input to input are constant: probabilities, or a fraction of a number.
CONSTANT = 1e-4


@dataclass
class _Sums:
    """Totals over the inputs of one kind."""

    examples: int = 0
    entropy: float = 0.0
    agreement: float = 0.0


def training_fidelity(plan: TrainingPlan, built: BuiltTraining, network: keras.Model) -> dict[str, Any] | None:
    """Returns the model card's `distillation` but for the soft term's share of the gradient.

    The teachers' predictions are combined at T = 1. Entropies are in nats; of several labels, per label. A regression
    has neither entropy nor agreement: null.

    Args:
      plan: of the training job.
      built: what was trained, with the online teachers.
      network: the trained network outside of any strategy.

    Returns:
      {"entropy": mean over labelled inputs, "entropy_transfer": over unlabelled ones, or None, "max_entropy",
      "agreement": share of all inputs on which student and teachers predict the same class (of several labels: of equal
      decisions), "examples": number of inputs looked at, "targets_vary": whether any prediction differs between
      inputs}; None: no distillation, masked texts, another process of a cluster than its chief, or online teachers in a
      cluster.
    """
    config, head = plan.config, plan.head
    if not config.distillation or head.name == MASKED or not is_chief(plan.cluster):
        return None
    if config.teachers and plan.cluster:
        return None
    passes = FRACTION * config.epochs
    compared = tf.function(_compared(plan, built.learner, network), autograph=needs_autograph(network))
    files_of, sums = files_by_kind(plan.data), dict[str, _Sums]()
    low, high = np.array(np.inf), np.array(-np.inf)  # of each output
    for kind, files in files_of.items():
        count = int(np.clip(passes * files.count, MIN_INPUTS, MAX_INPUTS))
        sums[kind] = own = _Sums()
        for batch in sampled_batches(plan, kind, count, plan.examples_passing):
            prediction, entropy, agreement = (part.numpy() for part in compared(*batch))
            own.examples += len(prediction)
            own.entropy += float(entropy.sum(dtype=np.float64))
            own.agreement += float(agreement.sum(dtype=np.float64))
            low, high = np.minimum(low, prediction.min(axis=0)), np.maximum(high, prediction.max(axis=0))
    entropies = {kind: own.entropy / own.examples for kind, own in sums.items()}
    counts = {kind: files.count for kind, files in files_of.items()}
    agreement = sum(counts[kind] * own.agreement / own.examples for kind, own in sums.items()) / sum(counts.values())
    is_number = head.name == "regression"
    return {
        "entropy": None if is_number else entropies.get(LABELLED),
        "entropy_transfer": None if is_number else entropies.get(UNLABELLED),
        "max_entropy": _max_entropy(head, network.output_shape[-1] // config.heads),
        "agreement": None if is_number else agreement,
        "examples": sum(own.examples for own in sums.values()),
        "targets_vary": vary(low, high),
    }


def _max_entropy(head: Head, outputs: int) -> float | None:
    if head.name == "regression":
        return None
    return math.log(head.width(outputs) if head.name == "classification" else 2)


def vary(low: np.ndarray, high: np.ndarray) -> bool:
    """Returns whether predictions differ between inputs, from the least and the greatest of each output."""
    return bool(np.any(high - low > CONSTANT * np.maximum(1.0, np.abs(high))))


def combined_teachers(plan: TrainingPlan, learner: Learner, features, targets) -> tf.Tensor:
    """Returns the logits of all teachers together at T = 1, float32 [batch, outputs], outside of the replicas.

    Args:
      plan: of a training job that distils.
      learner: has the online teachers.
      features: of a batch.
      targets: of the batch; {}: online teachers are asked.
    """
    settings = plan.config.distillation
    assert settings, "only a student that distils has teachers"
    if plan.config.teachers:
        # Online teachers can be called only by the replicas of the strategy that they were loaded for.
        answers = plan.strategy.run(learner.targets_of, args=(features, targets))
        logits = plan.strategy.experimental_local_results(answers[LOGITS])[0]
    else:
        logits = targets[LOGITS]
    return combine(logits, settings.ensemble.weights, 1.0, settings.ensemble.combination, plan.head.name)


def _compared(plan: TrainingPlan, learner: Learner, network: keras.Model):
    """Returns the function from a batch to the teachers' predictions, their entropy, and the student's agreement.

    The predictions are [batch, outputs], the others float32 [batch].
    """
    head = plan.head

    def compared(features, labels, targets):
        teachers = combined_teachers(plan, learner, features, targets)
        output = network({name: features[name] for name in network.input_names}, training=False)
        student = combined_logits(plan.config, output)
        none = tf.zeros(tf.shape(teachers)[:1])
        if head.name == "regression":
            return teachers, none, none
        if head.name == "multi_label":
            probabilities = tf.sigmoid(teachers)
            entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=probabilities, logits=teachers)
            same = tf.reduce_mean(tf.cast((student > 0) == (teachers > 0), tf.float32), axis=-1)
            return probabilities, tf.reduce_mean(entropy, axis=-1), same
        probabilities = tf.nn.softmax(teachers)
        entropy = tf.nn.softmax_cross_entropy_with_logits(labels=probabilities, logits=teachers)
        same = tf.argmax(student, axis=-1) == tf.argmax(teachers, axis=-1)
        return probabilities, entropy, tf.cast(same, tf.float32)

    return compared
