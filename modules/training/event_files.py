"""Writes a training job's hyperparameters and the metrics of each epoch for TensorBoard."""

from typing import Any

import tensorflow as tf
import tf_keras as keras
from tensorboard.plugins.hparams import api as hparams

from stillhouse.modules.training.config import TrainingConfig


class EventFiles(keras.callbacks.Callback):
    """Writes an event file; a resumed training job writes another beside it."""

    def __init__(self, folder: str, config: TrainingConfig):
        super().__init__()
        self._folder = folder
        self._hyperparameters = {"network": config.builder, **hyperparameters(config)}
        self._writer: tf.summary.SummaryWriter | None = None

    def on_train_begin(self, logs=None):
        """Writes the hyperparameters once; the rest of an interrupted epoch is a separate fit."""
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._folder)
            with self._writer.as_default():
                hparams.hparams(self._hyperparameters)

    def on_epoch_end(self, epoch, logs=None):
        """Writes a scalar for each figure; `epoch` counts from 0, the step in the file from 1."""
        assert self._writer, "Keras calls on_train_begin first"
        with self._writer.as_default(step=epoch + 1):
            for name, value in (logs or {}).items():
                tf.summary.scalar(name, float(value))
        self._writer.flush()


def hyperparameters(config: TrainingConfig) -> dict[str, Any]:
    """Returns a training job's hyperparameters by their settings keys; values that are not plain become strings."""
    named = {
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "precision": config.precision,
        "label_smoothing": config.label_smoothing,
        **{f"optimizer.{name}": value for name, value in config.optimizer.model_dump().items()},
        **{f"hyperparameters.{name}": value for name, value in config.hyperparameters.items()},
    }
    if config.distillation:
        learning = config.distillation.model_dump(include={"objective", "temperature", "alpha"})
        learning["combination"] = config.distillation.ensemble.combination
        named |= {f"distillation.{name}": value for name, value in learning.items()}
    return {name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in named.items()}
