"""Checks that the examples of a training job fit its network, its batches and its validation split."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules import progress
from stillhouse.modules.cluster.strategies import is_asynchronous
from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.labels import LabelScan
from stillhouse.modules.models.heads import HEADS, MASKED
from stillhouse.modules.training.config import TrainingConfig
from stillhouse.modules.training.data import TrainingData

MAX_NAMED = 10  # classes, in a message


def check_labels(config: TrainingConfig, network: keras.Model, *scans: LabelScan) -> None:
    """Checks that the labels of every split fit the network's output.

    Raises:
      UserError: they do not; the message says what was found and what fits.
    """
    width = network.output_shape[-1] // config.heads
    smallest, largest = min(scan.smallest for scan in scans), max(scan.largest for scan in scans)
    name = f"{config.task}.{config.builder}"
    if config.head == "regression":
        if width != 1:
            raise UserError(f"{name}: found {width} outputs; expected 1 for regression")
    elif config.head == "multi_label":
        if smallest < 0 or largest > 1:
            wrong = smallest if smallest < 0 else largest
            raise UserError(f"{name}: label {config.label!r}: found {wrong}; expected 0 or 1 for the head multi_label")
    elif config.head == MASKED:
        if largest >= width:
            raise UserError(
                f"{name}: tokens {config.label!r}: found the id {largest:.0f}; expected less than {width}, its "
                "network's vocabulary; set that hyperparameter to the vocabulary's size"
            )
    else:
        classes = HEADS[config.head].width(width)
        if smallest < 0 or largest >= classes:
            wrong = smallest if smallest < 0 else largest
            unseen = " (a vocabulary gives -1 to a label that the train split does not have)" if wrong < 0 else ""
            raise UserError(
                f"{name}: the label {config.label!r} must be in 0..{classes - 1}, the model's classes "
                f"(output width {width}); found {wrong} in the transformed data{unseen}"
            )


def check_classes(config: TrainingConfig, network: keras.Model, names: Sequence[str] | None) -> None:
    """Checks that each class that the network can predict has a name in the label's vocabulary.

    Args:
      config: of the training job.
      network: to be trained.
      names: of the classes, by id; None: the label is not from a vocabulary.

    Raises:
      UserError: the network has more classes.
    """
    if config.head != "classification" or names is None:
        return
    classes = HEADS[config.head].width(network.output_shape[-1] // config.heads)
    if classes > len(names):
        raise UserError(
            f"{config.task}.{config.builder}: found {classes} classes (output width {network.output_shape[-1]}); "
            f"expected at most {len(names)}: the train split has no other values of the label {config.label!r} than "
            f"{', '.join(names)}; add examples of the other classes, or correct the output"
        )


def check_validation(config: TrainingConfig, data: TrainingData, names: Sequence[str] | None) -> None:
    """Says which classes the validation split lacks: no epoch is chosen for their sake.

    Args:
      config: of the training job; only the student's says it, once for the run.
      data: its examples.
      names: of the classes, by id; None: the label is not from a vocabulary.
    """
    if config.role != "student" or config.head != "classification" or data.validation_labels is None:
        return
    lacking = sorted(set(data.train_labels.per_class) - set(data.validation_labels.per_class))
    if lacking:
        named = [names[number] if names and number < len(names) else str(number) for number in lacking]
        progress.note(
            f"data.splits: validation has no examples of {len(named)} of {len(data.train_labels.per_class)} classes: "
            f"{', '.join(named[:MAX_NAMED])}{', ...' if len(named) > MAX_NAMED else ''}; epochs are chosen without "
            "them; give validation a larger share"
        )


def check_batches(config: TrainingConfig, strategy: tf.distribute.Strategy, examples: int) -> None:
    """Checks that every replica gets a part of every whole batch.

    Raises:
      UserError: there are more replicas than examples in a batch, or a TPU would get batches of differing sizes.
    """
    replicas = strategy.num_replicas_in_sync
    if is_asynchronous(strategy):
        return
    if config.batch_size < replicas:
        raise UserError(
            f"{config.name}: batch_size: found {config.batch_size}; expected at least {replicas}, one per replica"
        )
    if isinstance(strategy, tf.distribute.TPUStrategy):
        if config.batch_size % replicas:
            raise UserError(
                f"{config.name}: batch_size: found {config.batch_size}; expected a multiple of {replicas} (TPU cores)"
            )
        if examples < config.batch_size:
            raise UserError(
                f"{config.name}: batch_size: found {config.batch_size}; expected at most {examples} "
                f"on a TPU (examples); lower it"
            )
