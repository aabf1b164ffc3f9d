"""How much the soft term moves the student: its part of the gradient, and a warning where it does nothing."""

import math

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules import progress
from stillhouse.modules.distillation.diagnosis import MIN_GRADIENT_SHARE
from stillhouse.modules.models.autograph import needs_autograph
from stillhouse.modules.training.input_sample import LABELLED, sampled_batches
from stillhouse.modules.training.learner import Learner
from stillhouse.modules.training.plan import TrainingPlan
from stillhouse.modules.training.training_fidelity import combined_teachers, vary

# Name in the training history, and in the model card's `distillation`.
SOFT_GRADIENT_SHARE = "soft_gradient_share"
MEASURED = 256  # labelled examples of the one batch, at most


class SoftTerm(keras.callbacks.Callback):
    """Measures the soft term's share of the gradient once, after the first epoch whose alpha is above 0.

    Earlier the weights are random, later both terms cancel each other out: where the loss is at its minimum, the share
    is one half, whatever the terms are. The share is added to the epoch's logs, so that checkpoints have it.
    """

    def __init__(self, plan: TrainingPlan, history: dict[str, list[float]]):
        """Prepares the callback.

        Args:
          plan: of a training job in one process that distils.
          history: of the training job so far, as the checkpoints have it.
        """
        super().__init__()
        self._plan = plan
        self._history = history

    def on_epoch_end(self, epoch, logs=None):
        """Adds the share to `logs` and warns if the soft term does nothing."""
        alpha = float(self.model.alpha.numpy())
        if SOFT_GRADIENT_SHARE in self._history or not alpha:
            return
        plan, strategy = self._plan, self._plan.strategy
        size = min(MEASURED, plan.examples_passing)
        batch = next(sampled_batches(plan, LABELLED, size, size))
        share = soft_gradient_share(self.model, strategy, batch)
        logs[SOFT_GRADIENT_SHARE] = share
        name, temperature = plan.config.name, float(self.model.temperature.numpy())
        if size > 1 and not self._targets_vary(batch):
            progress.note(
                f"warning: {name}: the teachers predict the same for each of {len(batch[1])} labelled inputs, so that "
                "the student learns nothing about the inputs from them; check the teachers' training and their inputs"
            )
        elif share < MIN_GRADIENT_SHARE:
            progress.note(
                f"warning: {name}: the soft term has {share:.2%} of the gradient after epoch {epoch + 1} (alpha "
                f"{alpha:g}, temperature {temperature:g}): the teachers change next to nothing; raise "
                "student.distillation.alpha, or check the scale of the teachers' logits"
            )

    def _targets_vary(self, batch: tuple) -> bool:
        features, _, targets = batch
        ask = tf.function(lambda: combined_teachers(self._plan, self.model, features, targets), autograph=False)
        predictions = self._plan.head.prediction(ask()).numpy()
        return vary(predictions.min(axis=0), predictions.max(axis=0))


def soft_gradient_share(learner: Learner, strategy: tf.distribute.Strategy, batch: tuple) -> float:
    """Returns |alpha · soft gradient| / (|alpha · soft gradient| + |(1 − alpha) · hard gradient|) on a batch.

    The norms are Euclidean, over all weights of the network; 0 where both gradients are 0. The network passes as at
    inference: no weight, statistic or random generator changes.

    Args:
      learner: a distilling one, built under `strategy`.
      strategy: of one process; one of its replicas is asked.
      batch: (features, labels, targets), with labels.
    """
    features, labels, targets = batch
    weights = learner.network.trainable_variables

    def norm_of(term: str) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses, _ = learner.losses_of(features, labels, targets, training=False)
            total = tf.reduce_sum(losses[term])
        gradients = [part for part in tape.gradient(total, weights) if part is not None]
        # One row of an embedding may be several rows of its sparse gradient.
        squares = [tf.reduce_sum(tf.square(tf.cast(tf.convert_to_tensor(part), tf.float32))) for part in gradients]
        return tf.sqrt(tf.add_n(squares)) if squares else tf.zeros([])

    def norms():
        return norm_of("soft_loss"), norm_of("hard_loss")

    measured = tf.function(lambda: strategy.run(norms), autograph=needs_autograph(learner.network))()
    soft, hard = (float(strategy.experimental_local_results(part)[0]) for part in measured)
    alpha = float(learner.alpha.numpy())
    soft, hard = alpha * soft, (1 - alpha) * hard
    return soft / (soft + hard) if math.isfinite(soft + hard) and soft + hard else 0.0
