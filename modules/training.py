"""The run_fn of every Trainer: teachers, baseline and student alike.

Reads from top to bottom: configuration, data, network, objective, fit, export.
"""

import time
from dataclasses import dataclass, field, replace
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras
from tfx.components.trainer.fn_args_utils import FnArgs

from modules import progress
from modules.distillation.hints import HIDDEN, Hints
from modules.distillation.objectives import find_objective
from modules.distillation.schedules import Schedules, value_at
from modules.distillation.soft_targets import LOGITS, SoftTargetsCard, check_match, read_soft_targets_card
from modules.distillation.teachers import Faults, Teacher, check_widths
from modules.errors import UserError
from modules.export import export_network
from modules.heads import HEADS, Head
from modules.ingestion import (
    ExampleFiles,
    LabelScan,
    Shard,
    count_records,
    example_files,
    first_features,
    scan_labels,
    split_folder,
    training_dataset,
)
from modules.learner import Distillation, Learner, ask
from modules.strategies import make_strategy
from modules.task import build_model, find_augment

# Steps in one call of the compiled training loop. More of them save the way through Python, which is longer than a
# step of a small model; a Ctrl-C waits for the call to end.
MOST_STEPS_PER_EXECUTION = 32

# Teachers that are asked online are asked about so many examples before the training starts.
CHECKED_EXAMPLES = 1024

# By class: keras.optimizers.get would give the legacy ones.
OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "nadam": keras.optimizers.Nadam,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": keras.optimizers.SGD,
}


@dataclass(frozen=True)
class TrainingConfig:
    """What one training needs; travels as JSON in the custom_config of a Trainer."""

    name: str  # the node's name, for messages
    role: str  # teacher, baseline or student
    task: str  # import path of the task module
    label: str
    hyperparameters: dict[str, Any]
    epochs: int
    batch_size: int
    seed: int
    optimizer: dict[str, Any]  # name, learning_rate, schedule
    strategy: dict[str, Any]  # name, devices
    head: str = "classification"
    builder: str = "build_student"  # name of the task's function that builds this network
    label_smoothing: float = 0.0
    augment: bool = False
    shard: dict[str, int] | None = None  # index, of: the part of the train split that this model sees
    omit_classes: list[int] = field(default_factory=list)
    hidden_layers: list[str] = field(default_factory=list)  # to export, for hints
    distillation: dict[str, Any] | None = None  # settings of Distillation and of the ensemble; None: hard labels only
    # Set by the distillation Trainer. Either the teachers, as SavedModel folders, or their cached soft targets.
    teachers: list[str] = field(default_factory=list)
    soft_targets: str | None = None
    transfer_files: list[str] = field(default_factory=list)  # patterns of examples without labels
    code: str = ""  # fingerprint of the code, here so that TFX's cache sees a change of it


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


class EpochReport(keras.callbacks.Callback):
    """Tells the progress of each epoch and stops a training whose loss is no longer a number."""

    def __init__(self, name: str, epochs: int):
        super().__init__()
        self._name = name
        self._epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        """Raises UserError on a loss that is NaN or infinite."""
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        if not tf.math.is_finite(metrics["loss"]):
            raise UserError(
                f"{self._name}: the loss is {metrics['loss']} in epoch {epoch + 1}; lower optimizer.learning_rate, "
                "or look for NaN in the features that preprocessing_fn returns"
            )
        progress.epoch_done(self._name, epoch + 1, self._epochs, metrics)


def make_optimizer(settings: dict[str, Any], updates: int) -> keras.optimizers.Optimizer:
    """Returns the optimiser of the settings {name, learning_rate, schedule}, its schedule spread over `updates`."""
    rate = settings["learning_rate"]
    if settings["schedule"] == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, decay_steps=updates)
    return OPTIMIZERS[settings["name"]](learning_rate=rate)


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


def read_data(config: TrainingConfig, fn_args: FnArgs, feature_spec: dict) -> TrainingData:
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


def make_distillation(
    config: TrainingConfig, network: keras.Model, teachers: list[Teacher], card: SoftTargetsCard | None
) -> Distillation:
    """Returns how the student learns, from the settings in `config.distillation`.

    Raises:
      UserError: teachers or hints do not fit the student.
    """
    settings = config.distillation
    width = HEADS[config.head].width(network.output_shape[-1])
    if card:
        count, outputs = card.shapes[LOGITS]
        check_widths(dict.fromkeys(card.teachers, outputs), width)
        shapes = card.shapes
    else:
        count = len(teachers)
        check_widths({teacher.name: teacher.outputs for teacher in teachers}, width)
        shapes = {
            f"{HIDDEN}{number}/{layer}": shape
            for number, teacher in enumerate(teachers, start=1)
            for layer, shape in teacher.hidden_shapes().items()
        }
    if len(settings["weights"]) != count:
        raise UserError(f"{config.name}: {len(settings['weights'])} teachers are wanted, there are {count}")
    return Distillation(
        objective=find_objective(settings["objective"], config.head),
        weights=settings["weights"],
        combination=settings["combination"],
        alpha=value_at(settings["alpha"], 0, config.epochs),
        temperature=value_at(settings["temperature"], 0, config.epochs),
        hints=Hints(settings["hints"], network, shapes) if settings["hints"] else None,
    )


def train(config: TrainingConfig, fn_args: FnArgs) -> tuple[keras.Model, dict[str, Any]]:
    """Trains the network of `config` and returns it, outside of any strategy, with its model card.

    Raises:
      UserError: task module, labels, teachers, soft targets or strategy do not fit together.
    """
    transform = tft.TFTransformOutput(fn_args.transform_graph_path)
    feature_spec = transform.transformed_feature_spec()
    head: Head = HEADS[config.head]
    keras.backend.clear_session()
    keras.utils.set_random_seed(config.seed)
    strategy = make_strategy(**config.strategy)

    data = read_data(config, fn_args, feature_spec)
    dataset = training_dataset(
        data.files,
        feature_spec,
        config.label,
        config.batch_size,
        config.seed,
        head=head,
        card=data.card,
        transfer=data.transfer,
        shard=data.shard,
        omit_classes=config.omit_classes,
        augment=find_augment(config.task) if config.augment else None,
    )
    steps = -(-data.examples // config.batch_size)

    def network() -> keras.Model:
        features = {name: spec for name, spec in feature_spec.items() if name != config.label}
        return build_model(config.task, config.builder, config.hyperparameters, features)

    with strategy.scope():
        trained = network()
        check_labels(config, trained, data.train_labels, data.eval_labels)
        teachers = [Teacher(path, f"Teacher-{i}", head) for i, path in enumerate(config.teachers, start=1)]
        distillation = make_distillation(config, trained, teachers, data.card) if config.distillation else None
        answers = (lambda features: ask(teachers, features)) if teachers else None
        if answers:
            features = first_features(data.files.examples, feature_spec, config.label, head, CHECKED_EXAMPLES)
            faults = Faults([teacher.name for teacher in teachers], head)
            faults.count(answers(features)[LOGITS].numpy())
            faults.refuse()
        learner = Learner(trained, head, distillation, answers, config.label_smoothing)
        learner.compile(
            optimizer=make_optimizer(config.optimizer, steps * config.epochs),
            steps_per_execution=min(steps, MOST_STEPS_PER_EXECUTION),
        )

    callbacks = [EpochReport(config.name, config.epochs)]
    if config.distillation:
        callbacks.insert(0, Schedules(config.distillation, config.epochs))
    started = time.monotonic()
    history = learner.fit(dataset, epochs=config.epochs, steps_per_epoch=steps, verbose=0, callbacks=callbacks)
    seconds = time.monotonic() - started
    progress.LOGGER.debug("%s: %d examples, %d epochs, %.1f s", config.name, data.examples, config.epochs, seconds)

    # A network of its own outside the strategy's scope: what is shipped carries no trace of how it was trained.
    result = network()
    result.set_weights(trained.get_weights())
    card = {
        "name": config.name,
        "role": config.role,
        "head": config.head,
        "strategy": config.strategy["name"],
        "replicas": strategy.num_replicas_in_sync,
        "train_examples": data.examples,
        "transfer_examples": data.transfer_examples,
        "history": {name: [float(value) for value in values] for name, values in history.history.items()},
    }
    return result, card


def run_fn(fn_args: FnArgs) -> None:
    """Trains the model that `fn_args.custom_config` (a TrainingConfig as a dict) describes and exports it.

    Raises:
      UserError: as `train` does.
    """
    config = TrainingConfig(**fn_args.custom_config)
    network, card = train(config, fn_args)
    transform = tft.TFTransformOutput(fn_args.transform_graph_path)
    export_network(
        network, transform, config.label, fn_args.serving_model_dir, card, HEADS[config.head], config.hidden_layers
    )
