"""The artifacts of a finished run, to call executors and modules with, outside of a pipeline."""

from pathlib import Path

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.types import artifact_utils, standard_artifacts

from stillhouse.modules.models.export import export_network
from stillhouse.modules.training.config import TrainingConfig


class Artifacts:
    """Those below the root of a run of the blobs task."""

    def __init__(self, root: Path):
        self._root = root / "artifacts"

    def uri(self, node: str, output: str) -> Path:
        (uri,) = (self._root / node / output).iterdir()
        return uri

    @property
    def graph(self) -> Path:
        return self.uri("Transform", "transform_graph")

    @property
    def transform(self) -> tft.TFTransformOutput:
        return tft.TFTransformOutput(str(self.graph))

    @property
    def examples(self) -> Path:
        return self.uri("Transform", "transformed_examples")

    def teachers(self) -> list[Path]:
        return [self.uri(f"Teacher-{number}", "model") for number in (1, 2)]

    def fn_args(self, folder: Path) -> FnArgs:
        return FnArgs(
            train_files=[str(self.examples / "Split-train" / "*")],
            eval_files=[str(self.examples / "Split-eval" / "*")],
            transform_graph_path=str(self.graph),
            serving_model_dir=str(folder / "model"),
            model_run_dir=str(folder / "model_run"),
        )

    def inputs(self, models: list[Path]) -> dict:
        """Returns the input_dict of SoftTargets."""
        found = {
            "examples": [artifact(standard_artifacts.Examples, self.examples, ["train", "eval"])],
            "transform_graph": [artifact(standard_artifacts.TransformGraph, self.graph)],
        }
        for number, model in enumerate(models, start=1):
            found[f"teacher_{number}"] = [artifact(standard_artifacts.Model, model)]
        return found

    def export(self, folder: Path, network: keras.Model) -> Path:
        """Exports a network of the blobs task as a Model artifact in `folder`."""
        export_network(
            network, self.transform, "tree", str(folder / "Format-Serving"), {"name": "x", "role": "teacher"}
        )
        return folder


def training_config(run: Artifacts, distilled: bool, **changes) -> TrainingConfig:
    """Returns the training of a student of the blobs task, on hard labels or from cached soft targets."""
    settings = {
        "name": "Student",
        "role": "student",
        "task": "blobs_task",
        "label": "tree",
        "hyperparameters": {},
        "epochs": 3,
        "batch_size": 32,
        "seed": 4,
        "optimizer": {"name": "adam", "learning_rate": 0.01, "schedule": "constant"},
        "strategy": {"name": "one_device"},
    }
    if distilled:
        settings["distillation"] = {
            "objective": "kl_divergence",
            "temperature": {"start": 3.0, "end": 1.0, "schedule": "linear"},
            "alpha": {"start": 0.9, "end": 0.5, "schedule": "linear"},
            "ensemble": {"weights": [1.0, 2.0], "combination": "arithmetic"},
        }
        settings["soft_targets"] = str(run.uri("SoftTargets", "soft_targets"))
    return TrainingConfig.model_validate(settings | changes)


def changed(config: TrainingConfig, **changes) -> TrainingConfig:
    """Returns the training with `changes`, checked as in a job file."""
    return TrainingConfig.model_validate(config.model_dump() | changes)


def artifact(kind: type, uri: Path, splits: list[str] | None = None):
    made = kind()
    made.uri = str(uri)
    if splits:
        made.split_names = artifact_utils.encode_split_names(splits)
    return made


def network(units: int = 3, activation=None, weight: float | None = None) -> keras.Model:
    """A perceptron from the four features of the blobs task to `units` outputs."""
    keras.utils.set_random_seed(1)
    features = keras.Input([4], name="features")
    initializer = "glorot_uniform" if weight is None else keras.initializers.Constant(weight)
    dense = keras.layers.Dense(units, activation=activation, kernel_initializer=initializer)
    return keras.Model(features, dense(features))


def save(model, folder, name="features", width=4):
    """Saves a model as others do: one signature, the input named as they please."""
    spec = tf.TensorSpec([None, width], tf.float32, name=name)

    # Without AutoGraph, and without Keras's own functions: ten seconds less.
    serve = tf.function(lambda x: {"out": model(x)}, autograph=False).get_concrete_function(spec)
    module = tf.Module()
    module.kept = model.variables
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
    return str(folder)
