"""What the validation split says after each epoch: which epoch to keep, and when to stop.

Every decision is a function of the history, which checkpoints contain, so that a resumed training job decides as an
undisturbed one. The weights of the best epoch so far are part of the checkpoints too.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.distillation.head_per_teacher import combined_heads
from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import as_written, read
from stillhouse.modules.models.autograph import needs_autograph
from stillhouse.modules.models.heads import HEADS, Head
from stillhouse.modules.models.weights import copy_weights
from stillhouse.modules.text.masking import Masking
from stillhouse.modules.training.build import BuiltTraining, build_network
from stillhouse.modules.training.config import TrainingConfig
from stillhouse.modules.training.keras_state import random_generators_in_variables
from stillhouse.modules.training.plan import TrainingPlan

EVALUATED_AT_ONCE = 256
PREFIX = "validation_"  # of the names in the history
SMALLER_IS_BETTER = ("mean_absolute_error",)


def evaluation_batches(
    files: Sequence[str], parser: ExampleParser, masking: Masking | None = None, in_memory: bool = False
) -> tf.data.Dataset:
    """Returns the examples of files in their order: (features, labels).

    Args:
      files: of a split.
      parser: of its examples.
      masking: masks each example, the same way in every pass; None: no masked language modelling.
      in_memory: keep the parsed examples after the first pass.
    """

    def parsed(number, records):
        batch = parser(records)
        if masking:
            batch = masking(batch, tf.stack([0, tf.cast(number, tf.int32)]))
        return batch[:2]

    batches = read(files).batch(EVALUATED_AT_ONCE).enumerate().map(as_written(parsed), num_parallel_calls=1)
    return (batches.cache() if in_memory else batches).prefetch(1)


def combined_logits(config: TrainingConfig, output: tf.Tensor) -> tf.Tensor:
    """Returns the logits [batch, outputs] that a network of the configuration is served with, from its output."""
    head = HEADS[config.head]
    if config.heads == 1 or not config.distillation:
        return head.logits(output)
    ensemble = config.distillation.ensemble
    return combined_heads(output, head, ensemble.weights, ensemble.combination)


def make_measure(
    network: keras.Model, head: Head, logits_of: Callable[[tf.Tensor], tf.Tensor] | None = None
) -> Callable[[tf.data.Dataset], dict[str, float]]:
    """Returns a function from batches (features, labels) to the mean loss (nats) and quality of the labelled examples.

    Args:
      network: outside of any strategy.
      head: the meaning of its output.
      logits_of: from the network's output to logits; None: the head's own way.
    """

    def totals(features, labels):
        output = network({name: features[name] for name in network.input_names}, training=False)
        logits = (logits_of or head.logits)(output)
        present, safe = tf.cast(head.is_labelled(labels), tf.float32), head.safe_labels(labels)
        values = (head.hard_loss(safe, logits), head.quality_of(safe, logits), tf.ones_like(present))
        return tf.stack([tf.reduce_sum(present * value) for value in values])

    compiled = tf.function(totals, reduce_retracing=True, autograph=needs_autograph(network))

    def measure(batches: tf.data.Dataset) -> dict[str, float]:
        sums = [compiled(features, labels) for features, labels in batches]
        loss, quality, count = tf.add_n(sums).numpy().tolist() if sums else (0.0, 0.0, 0.0)
        return {"loss": loss / count, head.quality: quality / count} if count else {}

    return measure


def best_epoch(history: Mapping[str, Sequence[float]], quality: str) -> int | None:
    """Returns the number, from 0, of the epoch that the validation split likes best; None: nothing was validated.

    That is the one with the best quality; of equal ones the one with the smallest loss.
    """
    qualities, losses = history.get(PREFIX + quality), history.get(PREFIX + "loss")
    if not qualities or not losses:
        return None
    sign = 1 if quality in SMALLER_IS_BETTER else -1
    # A loss that is not a number is worse than any.
    keys = [
        (sign * value, loss) if math.isfinite(loss) else (math.inf, math.inf)
        for value, loss in zip(qualities, losses, strict=True)
    ]
    return keys.index(min(keys))


def has_ended(history: Mapping[str, Sequence[float]], quality: str, patience: int | None) -> bool:
    """Returns whether a training job has had no better epoch for `patience` epochs."""
    best = best_epoch(history, quality)
    if best is None or patience is None:
        return False
    return len(history[PREFIX + "loss"]) - 1 - best >= patience


class Validation(keras.callbacks.Callback):
    """Measures the validation split after each epoch and keeps the weights of the best one.

    It measures a network outside of the strategy, which gets the trained weights (or their moving average), so that all
    strategies and loops are measured alike.
    """

    def __init__(self, plan: TrainingPlan, built: BuiltTraining):
        """Builds the network that is measured.

        Args:
          plan: of a training job with validation files.
          built: what is trained.
        """
        super().__init__()
        config = plan.config
        self._plan, self._built = plan, built
        self._quality = plan.head.quality
        self.seconds = 0.0  # that the last measurement took
        with random_generators_in_variables(False):
            self._measured = build_network(plan)
        self._measure = make_measure(self._measured, plan.head, lambda output: combined_logits(config, output))
        parser = ExampleParser(plan.feature_spec, config.label, plan.head)
        in_memory = plan.data.options.cache == "memory"
        self._batches = evaluation_batches(plan.data.validation_files, parser, plan.masking, in_memory)
        self.history: Mapping[str, list[float]] = {}  # of the checkpoints
        with tf.device("/CPU:0"):
            self._best = [tf.Variable(weight, trainable=False) for weight in self._measured.get_weights()]

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold."""
        return {"best_weights": self._best} if self._plan.config.keep == "best" else {}

    def on_epoch_end(self, epoch, logs=None):
        """Adds the epoch's figures to the logs, keeps its weights if they are the best, and may end the training."""
        began = time.monotonic()
        config = self._plan.config
        copy_trained_weights(self._built, self._measured)
        figures = self._agreed(self._measure(self._batches))
        logs |= {PREFIX + name: value for name, value in figures.items()}
        history = {PREFIX + name: [*self.history.get(PREFIX + name, []), value] for name, value in figures.items()}
        if config.keep == "best" and best_epoch(history, self._quality) == epoch:
            for kept, weight in zip(self._best, self._measured.get_weights(), strict=True):
                kept.assign(weight)
        if has_ended(history, self._quality, config.early_stopping):
            self.model.stop_training = True
        self.seconds = time.monotonic() - began

    def best_weights(self) -> list[np.ndarray]:
        """Returns the weights of the best epoch, in the order of the network's weights."""
        return [kept.numpy() for kept in self._best]

    def _agreed(self, figures: dict[str, float]) -> dict[str, float]:
        """Returns the figures, the same in all processes that train in step, which must not decide differently."""
        strategy = self._plan.strategy
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return figures
        values = tf.constant(list(figures.values()), tf.float32)
        agreed = strategy.reduce(tf.distribute.ReduceOp.MEAN, strategy.run(lambda: values), axis=None)
        return dict(zip(figures, agreed.numpy().tolist(), strict=True))


def copy_trained_weights(built: BuiltTraining, target: keras.Model) -> None:
    """Copies what a training job would export now, its weights or their moving average, to a network of its builder."""
    network, optimizer = built.network, built.learner.optimizer
    if not optimizer.use_ema:
        copy_weights(network, target)
        return
    trained = network.get_weights()
    # Keras's public way to the averages, which it keeps to itself.
    with built.learner.distribute_strategy.scope():
        optimizer.finalize_variable_values(network.trainable_variables)
        copy_weights(network, target)
        network.set_weights(trained)
