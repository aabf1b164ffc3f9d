"""Reports of a training job: each epoch, its memory, and, in stages, the timeline of a step."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules import progress
from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.waiting import INPUT_SHARE, INPUT_WAIT
from stillhouse.modules.large_models.ledger import ledgers_of_stages, whole_ledger
from stillhouse.modules.large_models.parallelism import Stages
from stillhouse.modules.large_models.timeline import busy, render_timeline
from stillhouse.modules.training.config import TrainingConfig
from stillhouse.modules.training.learner import STALENESS, Learner
from stillhouse.modules.training.validation import Validation

TIMELINE = "timeline.svg"  # in model_run_dir


@dataclass(frozen=True)
class EpochSize:
    """What an epoch has."""

    examples: int
    updates: int
    batches: int  # that an input pipeline gives one after the other


class EpochReport(keras.callbacks.Callback):
    """Reports the progress of each epoch and stops a training job whose loss is NaN or infinite."""

    def __init__(self, name: str, epochs: int, size: EpochSize, validation: Validation | None = None):
        """Stores what is reported; the time of `validation`, a callback before this one, is no time of the epoch."""
        super().__init__()
        self._validation = validation
        self._name = name
        self._epochs = epochs
        self._size = size
        self._began = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self._began = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        """Raises UserError on a loss that is NaN or infinite."""
        seconds = time.monotonic() - self._began - (self._validation.seconds if self._validation else 0.0)
        waited = logs.pop(INPUT_WAIT) * self._size.batches
        if STALENESS in logs:  # of interest where workers do not wait for each other
            logs["updates_per_second"] = self._size.updates / seconds
        metrics = {name: float(value) for name, value in logs.items()}
        logs["examples_per_second"] = self._size.examples / seconds
        logs[INPUT_SHARE] = min(1.0, float(waited) / seconds)
        if not tf.math.is_finite(metrics["loss"]):
            raise UserError(
                f"{self._name}: the loss is {metrics['loss']} in epoch {epoch + 1}; lower optimizer.learning_rate, "
                "or check the features that preprocessing_fn returns for NaN"
            )
        progress.epoch_done(self._name, epoch + 1, self._epochs, metrics)


def draw_step(config: TrainingConfig, learner: Learner, stages: Stages, datasets, folder: str) -> None:
    """Leaves the picture of a step in `folder`."""
    replicas = stages.settings.replicas
    context = tf.distribute.InputContext(num_replicas_in_sync=replicas)
    batch, _ = next(iter(datasets(0)(context)))
    passes = learner.clocked(batch)
    title = f"{config.name}: {stages.settings.schedule}, {stages.micro_batches} micro-batches"
    path = os.path.join(folder, TIMELINE)
    tf.io.gfile.makedirs(folder)
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(render_timeline(passes, title))
    progress.note(f"{config.name}: measured step: stages busy {busy(passes):.0%}; {path}")


def ledgers_of(
    network: keras.Model, learner: Learner, stages: Stages | None, passing: int, batch_size: int
) -> dict[str, dict[str, int]]:
    """Returns the bytes by kind on a replica's device, or on each of its stages."""
    if stages is None:
        return {"a replica": whole_ledger(network, learner.optimizer, learner.forward, passing)}
    settings = stages.settings
    micro_batch = batch_size // settings.replicas // stages.micro_batches
    ledgers = ledgers_of_stages(
        network,
        learner.optimizer,
        stages.partition.cut_indices,
        stages.in_flight,
        settings.rematerialise,
        micro_batch,
    )
    return {f"stage {number}": kinds for number, kinds in enumerate(ledgers)}


def listed(figures: Mapping[str, float | None]) -> str:
    """Returns the figures as text, with two digits at the least; those that are None are left out."""
    measured = {name.replace("_", " "): value for name, value in figures.items() if value is not None}
    return ", ".join(f"{name} {value:.1f}" if value >= 1 else f"{name} {value:.2g}" for name, value in measured.items())
