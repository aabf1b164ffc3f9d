"""The examples of a training: checked, and as the datasets of its strategy."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import tensorflow as tf
import tf_keras as keras

from modules.distillation.soft_targets import SoftTargetsCard, check_match, read_soft_targets_card
from modules.errors import UserError
from modules.heads import HEADS
from modules.ingestion import (
    ExampleFiles,
    LabelScan,
    Shard,
    count_records,
    example_files,
    parsed_batches,
    portion_of,
    record_batches,
    scan_labels,
    split_folder,
)
from modules.shared_input import SharedInput
from modules.strategies import is_asynchronous, tf_config
from modules.task import find_augment
from modules.training_config import TrainingConfig

if TYPE_CHECKING:  # TFX takes ten seconds to import, and the processes of a cluster do without it
    from tfx.components.trainer.fn_args_utils import FnArgs


@dataclass(frozen=True)
class TrainingData:
    """The examples of a training."""

    files: ExampleFiles
    shard: Shard | None
    transfer: ExampleFiles | None
    card: SoftTargetsCard | None
    train_labels: LabelScan
    eval_labels: LabelScan

    @property
    def transfer_examples(self) -> int:
        """Those without a label."""
        return self.transfer.count if self.transfer else 0

    @property
    def examples(self) -> int:
        """Of an epoch."""
        return self.files.count + self.transfer_examples


def check_labels(config: TrainingConfig, network: keras.Model, *scans: LabelScan) -> None:
    """Checks that the labels of every split fit the network's output.

    Raises:
      UserError: they do not; the message says what was found and what fits.
    """
    width = network.output_shape[-1]
    smallest, largest = min(scan.smallest for scan in scans), max(scan.largest for scan in scans)
    name = f"{config.task}.{config.builder}"
    if config.head == "regression":
        if width != 1:
            raise UserError(f"{name}: the output width is {width}; a regression has one output")
    elif config.head == "multi_label":
        if smallest < 0 or largest > 1:
            wrong = smallest if smallest < 0 else largest
            raise UserError(f"{name}: with the head multi_label each label is 0 or 1, but {config.label!r} has {wrong}")
    else:
        classes = max(2, width)
        if smallest < 0 or largest >= classes:
            wrong = smallest if smallest < 0 else largest
            unseen = " (a vocabulary gives -1 to a label that the train split does not have)" if wrong < 0 else ""
            raise UserError(
                f"{name}: the model tells {classes} classes apart (output width {width}), so the label "
                f"{config.label!r} must be in 0..{classes - 1}, but the transformed data has {wrong}{unseen}"
            )


def read_data(config: TrainingConfig, fn_args: "FnArgs", feature_spec: dict) -> TrainingData:
    """Returns the examples of the training, looked through once.

    Raises:
      UserError: there are none, labels do not fit the head, or soft targets are those of other examples.
    """
    head = HEADS[config.head]
    shard = Shard(**config.shard) if config.shard else None
    train_labels = scan_labels(fn_args.train_files, feature_spec, config.label, head, shard, config.omit_classes)
    eval_labels = scan_labels(fn_args.eval_files, feature_spec, config.label, head)
    files = ExampleFiles(example_files(fn_args.train_files), count=train_labels.examples)
    transfer = None
    if config.transfer_files:
        unlabelled = example_files(config.transfer_files)
        transfer = ExampleFiles(unlabelled, count=count_records(unlabelled))
    card = None
    if config.soft_targets:
        card = read_soft_targets_card(config.soft_targets)
        files = replace(files, soft_targets=split_folder(config.soft_targets, "train"))
        check_match(files.examples, files.soft_targets, card)
        if transfer:
            transfer = replace(transfer, soft_targets=split_folder(config.soft_targets, "transfer"))
            check_match(transfer.examples, transfer.soft_targets, card)
    return TrainingData(files, shard, transfer, card, train_labels, eval_labels)


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
            f"{config.name}: batch_size is {config.batch_size}, but there are {replicas} replicas to share it"
        )
    if isinstance(strategy, tf.distribute.TPUStrategy):
        if config.batch_size % replicas:
            raise UserError(
                f"{config.name}: batch_size {config.batch_size} does not divide by the {replicas} replicas of the TPU, "
                "which wants batches of one size"
            )
        if examples < config.batch_size:
            raise UserError(f"{config.name}: {examples} examples make no whole batch of {config.batch_size}")


def make_datasets(config: TrainingConfig, data: TrainingData, feature_spec: dict, strategy: tf.distribute.Strategy):
    """Returns, from the first step, the function from tf.distribute's InputContext to the batches of that input."""
    head = HEADS[config.head]
    augment = find_augment(config.task) if config.augment else None

    def parsed(batches, portion=None):
        return parsed_batches(
            batches,
            feature_spec,
            config.label,
            config.seed,
            head=head,
            card=data.card,
            augment=augment,
            portion=portion,
        )

    def records(first_step):
        return record_batches(
            data.files,
            feature_spec,
            config.label,
            config.batch_size,
            config.seed,
            transfer=data.transfer,
            shard=data.shard,
            omit_classes=config.omit_classes,
            first_step=first_step,
            drop_remainder=isinstance(strategy, tf.distribute.TPUStrategy),
        )

    served = []  # lives as long as the returned function

    def datasets(first_step):
        if is_asynchronous(strategy):
            host = tf_config()["cluster"]["chief"][0].rpartition(":")[0]
            served[:] = [SharedInput(records(first_step), host)]
            return lambda context: parsed(served[0].batches())
        return lambda context: parsed(records(first_step), portion_of(context))

    return datasets
