"""The run_fn of every Trainer: teachers, baseline and student alike.

Reads from top to bottom: configuration, data, network, objective, fit, export.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras
from tfx.components.trainer.fn_args_utils import FnArgs

from modules import progress
from modules.autograph import needs_autograph
from modules.distillation.objectives import class_logits, distillation_loss, hard_loss
from modules.distillation.teachers import Teacher
from modules.errors import UserError
from modules.export import export_network
from modules.ingestion import LabelScan, scan_labels, training_dataset
from modules.strategies import make_strategy
from modules.task import build_model

# Steps in one call of the compiled training loop. More of them save the way through Python, which is longer than a
# step of a small model; a Ctrl-C waits for the call to end.
MOST_STEPS_PER_EXECUTION = 32

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
    distillation: dict[str, Any] | None = None  # temperature, alpha; None: hard labels only
    teachers: list[str] = field(default_factory=list)  # SavedModel folders, set by the distillation Trainer
    code: str = ""  # fingerprint of the code, here so that TFX's cache sees a change of it

    @property
    def builder(self) -> str:
        """Name of the task's function that builds this network."""
        return "build_teacher" if self.role == "teacher" else "build_student"


class Learner(keras.Model):
    """Trains a network on hard labels, or on hard labels and the softened distribution of teachers.

    The loss of a step is the sum of the per-example losses over all replicas divided by the number of examples
    over all replicas, so that a partial last batch, and replicas with unequal shares of it, weigh every example
    the same.
    """

    def __init__(self, network: keras.Model, distillation: dict[str, Any] | None, teachers: list[Teacher]):
        """`distillation` has the keys temperature and alpha; None trains on hard labels and needs no teachers."""
        super().__init__()
        self.network = network
        self._distillation = distillation
        self._teachers = teachers
        self._loss_metric = keras.metrics.Mean(name="loss")
        self._step = self._update
        if not needs_autograph(network):
            self._step = tf.autograph.experimental.do_not_convert(self._update)
        self._accuracy_metric = keras.metrics.SparseCategoricalAccuracy(name="accuracy")

    @property
    def metrics(self):
        """Reset by Keras at the start of each epoch."""
        return [self._loss_metric, self._accuracy_metric]

    def _per_example_loss(self, features, labels, logits):
        if self._distillation is None:
            return hard_loss(labels, logits)
        teacher_logits = [tf.stop_gradient(teacher(features)) for teacher in self._teachers]
        settings = self._distillation
        return distillation_loss(labels, logits, teacher_logits, settings["temperature"], settings["alpha"])

    def train_step(self, data):
        """One update; `data` is ({feature: [batch, ...]}, label int64 [batch])."""
        return self._step(data)

    def _update(self, data):
        features, labels = data
        replicas = tf.distribute.get_replica_context()
        examples = replicas.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(tf.shape(labels)[0], tf.float32))
        with tf.GradientTape() as tape:
            inputs = {name: features[name] for name in self.network.input_names}
            logits = class_logits(self.network(inputs, training=True))
            per_example = self._per_example_loss(features, labels, logits)
            loss = tf.reduce_sum(per_example) / examples
            if self.network.losses:
                loss += tf.add_n(self.network.losses) / replicas.num_replicas_in_sync
        self.optimizer.minimize(loss, self.network.trainable_variables, tape=tape)
        self._loss_metric.update_state(per_example)
        self._accuracy_metric.update_state(labels, logits)
        return {metric.name: metric.result() for metric in self.metrics}


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
    """Checks that the class ids of every split fit the width of the network's output.

    Raises:
      UserError: they do not; the message says what was found and what fits.
    """
    width = network.output_shape[-1]
    classes = max(2, width)
    smallest, largest = min(scan.smallest for scan in scans), max(scan.largest for scan in scans)
    if smallest < 0 or largest >= classes:
        wrong = smallest if smallest < 0 else largest
        unseen = " (a vocabulary gives -1 to a label that the train split does not have)" if wrong < 0 else ""
        raise UserError(
            f"{config.task}.{config.builder}: the model tells {classes} classes apart (output width {width}), so the "
            f"label {config.label!r} must be in 0..{classes - 1}, but the transformed data has {wrong}{unseen}"
        )


def check_teachers(teachers: list[Teacher], network: keras.Model) -> None:
    """Checks that every teacher knows as many classes as the student.

    Raises:
      UserError: one does not.
    """
    classes = max(2, network.output_shape[-1])
    for teacher in teachers:
        if teacher.classes != classes:
            raise UserError(f"{teacher.name} tells {teacher.classes} classes apart, but the student {classes}")


def run_fn(fn_args: FnArgs) -> None:
    """Trains the model that `fn_args.custom_config` (a TrainingConfig as a dict) describes and exports it.

    Raises:
      UserError: task module, labels, teachers or strategy do not fit together.
    """
    config = TrainingConfig(**fn_args.custom_config)
    transform = tft.TFTransformOutput(fn_args.transform_graph_path)
    feature_spec = transform.transformed_feature_spec()
    keras.backend.clear_session()
    keras.utils.set_random_seed(config.seed)
    strategy = make_strategy(**config.strategy)

    scan = scan_labels(fn_args.train_files, feature_spec, config.label)
    eval_scan = scan_labels(fn_args.eval_files, feature_spec, config.label)
    dataset = training_dataset(fn_args.train_files, feature_spec, config.label, config.batch_size, config.seed)
    steps = -(-scan.examples // config.batch_size)

    def network() -> keras.Model:
        features = {name: spec for name, spec in feature_spec.items() if name != config.label}
        return build_model(config.task, config.builder, config.hyperparameters, features)

    with strategy.scope():
        trained = network()
        check_labels(config, trained, scan, eval_scan)
        teachers = [Teacher(path, f"teacher {i}") for i, path in enumerate(config.teachers, start=1)]
        check_teachers(teachers, trained)
        learner = Learner(trained, config.distillation, teachers)
        learner.compile(
            optimizer=make_optimizer(config.optimizer, steps * config.epochs),
            steps_per_execution=min(steps, MOST_STEPS_PER_EXECUTION),
        )

    started = time.monotonic()
    history = learner.fit(
        dataset,
        epochs=config.epochs,
        steps_per_epoch=steps,
        verbose=0,
        callbacks=[EpochReport(config.name, config.epochs)],
    )
    seconds = time.monotonic() - started

    # A network of its own outside the strategy's scope: what is shipped carries no trace of how it was trained.
    exported = network()
    exported.set_weights(trained.get_weights())
    card = {
        "name": config.name,
        "role": config.role,
        "strategy": config.strategy["name"],
        "replicas": strategy.num_replicas_in_sync,
        "train_examples": scan.examples,
        "history": {name: [float(value) for value in values] for name, values in history.history.items()},
    }
    export_network(exported, transform, config.label, fn_args.serving_model_dir, card)
    progress.LOGGER.debug("%s: %d examples, %d epochs, %.1f s", config.name, scan.examples, config.epochs, seconds)
