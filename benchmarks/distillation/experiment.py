"""What the benchmarks of this folder share: data, teachers, soft targets and students, by stillhouse's own parts.

Everything is trained by modules.training, and soft targets are written by the SoftTargets component, as in a pipeline;
 only the DAG around them is left out, so that many seeds take minutes. Accuracies are measured on transformed
examples in this process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras
from tfx.components.trainer.fn_args_utils import FnArgs

from benchmarks import as_in_pipeline
from benchmarks.as_in_pipeline import run_to_transform, training_config
from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import example_files
from stillhouse.modules.models.export import export_network
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.settings import Settings, Training, load_settings
from stillhouse.modules.training.config import TrainingConfig
from stillhouse.modules.training.train import train
from stillhouse.pipelines.dag.nodes import Dag
from stillhouse.pipelines.local.paths import local_paths

REPOSITORY = Path(__file__).parents[2]
HELD_OUT = 5  # every fifth training example is for validation
HEAD = HEADS["classification"]


@dataclass(frozen=True)
class Split:
    """A folder of transformed examples."""

    folder: Path

    @property
    def files(self) -> list[str]:
        """Its files."""
        return example_files([str(self.folder / "*")])


@dataclass(frozen=True)
class Task:
    """An example task with its data transformed."""

    settings: Settings
    dag: Dag
    graph: Path
    train: Split
    evaluation: Split
    # The train split without the validation examples, and these.
    fit: Split
    validation: Split

    @cached_property
    def transform(self) -> tft.TFTransformOutput:
        """The Transform's output."""
        return tft.TFTransformOutput(str(self.graph))

    def read(self, split: Split) -> tuple[dict[str, tf.Tensor], np.ndarray]:
        """Returns all features and labels of a split."""
        records = tf.data.TFRecordDataset(split.files, compression_type="GZIP").batch(1_000_000)
        spec = self.transform.transformed_feature_spec()
        features, labels, _ = ExampleParser(spec, self.settings.data.label, HEAD)(next(iter(records)))
        return features, labels.numpy()


def prepare(name: str, root: Path) -> Task:
    """Runs the data half of the example's pipeline, ExampleGen to Transform, and cuts off a validation split."""
    settings = load_settings(REPOSITORY / "pipelines" / "examples" / f"{name}.yaml")
    paths, graph = run_to_transform(settings, root / name)
    (examples,) = Path(paths.root, "Transform", "transformed_examples").iterdir()
    train_split = Split(examples / "Split-train")
    fit, validation = Split(root / name / "fit"), Split(root / name / "validation")
    for split in (fit, validation):
        split.folder.mkdir(parents=True, exist_ok=True)
    with (
        tf.io.TFRecordWriter(str(fit.folder / "examples.gz"), "GZIP") as fit_writer,
        tf.io.TFRecordWriter(str(validation.folder / "examples.gz"), "GZIP") as validation_writer,
    ):
        for number, record in enumerate(tf.data.TFRecordDataset(train_split.files, "GZIP").as_numpy_iterator()):
            (validation_writer if number % HELD_OUT == 0 else fit_writer).write(record)
    return Task(settings, Dag(settings, paths), graph, train_split, Split(examples / "Split-eval"), fit, validation)


def dag_below(settings: Settings, root: Path) -> Dag:
    """Returns what knows the settings of a run that is transformed already, below `root`."""
    return Dag(settings, local_paths(settings, root))


def config_of(task: Task, of: Training, role: str, seed: int, **changes) -> TrainingConfig:
    """Returns the configuration of one training, as the pipeline would make it."""
    return training_config(task.dag, of, role, seed, **changes)


def distillation_of(teachers: int, temperature: float, alpha: float, combination: str = "arithmetic") -> dict:
    """Returns the distillation settings of a training."""
    return {
        "objective": "kl_divergence",
        "temperature": temperature,
        "alpha": alpha,
        "ensemble": {"weights": [1.0] * teachers, "combination": combination},
    }


def fn_args(task: Task, split: Split) -> FnArgs:
    """Returns what a Trainer would hand to run_fn."""
    return FnArgs(
        train_files=split.files,
        eval_files=task.evaluation.files,
        transform_graph_path=str(task.graph),
        model_run_dir=f"{task.dag.paths.root}/event_files",
    )


def trained(task: Task, split: Split, config: TrainingConfig) -> keras.Model:
    """Returns the network trained on `split`."""
    network, _ = train(config, fn_args(task, split))
    return network


def logits(task: Task, network: keras.Model, split: Split) -> np.ndarray:
    """Returns the network's logits of a split, [examples, classes]."""
    features, _ = task.read(split)
    inputs = {name: features[name] for name in network.input_names}
    return HEAD.logits(tf.convert_to_tensor(network.predict(inputs, batch_size=1024, verbose=0))).numpy()


def accuracy(task: Task, scores: np.ndarray, split: Split) -> float:
    """Returns the share of examples whose largest score is that of their class."""
    _, labels = task.read(split)
    return float((scores.argmax(axis=-1) == labels).mean())


def mean_distribution(members: list[np.ndarray]) -> np.ndarray:
    """Returns the arithmetic mean of the members' distributions, from their logits."""
    return np.mean([tf.nn.softmax(member).numpy() for member in members], axis=0)


def write_soft_targets(
    task: Task,
    split: Split,
    teachers: list[keras.Model],
    folder: Path,
    fold_teachers: Sequence[list[keras.Model]] = (),
    **compact,
) -> str:
    """Exports the teachers and runs the SoftTargets component over `split`; returns the folder of the targets.

    Args:
      task: of the teachers.
      split: labelled examples to ask about.
      teachers: trained networks.
      folder: to write to.
      fold_teachers: the networks of each fold, one per teacher; empty: no folds.
      **compact: dtype and top of the targets.
    """

    def exported(networks: list[keras.Model], name: str) -> list[Path]:
        uris = [folder / f"{name}-{number}" for number in range(1, len(networks) + 1)]
        for number, (network, uri) in enumerate(zip(networks, uris, strict=True), start=1):
            card = {"name": f"Teacher-{number}", "role": "teacher"}
            export_network(network, task.transform, task.settings.data.label, str(uri / "Format-Serving"), card)
        return uris

    own = exported(teachers, "teacher")
    of_folds = [exported(networks, f"fold-{fold}") for fold, networks in enumerate(fold_teachers, start=1)]
    (folder / "examples").mkdir()
    (folder / "examples" / "Split-train").symlink_to(split.folder.absolute())
    label = task.settings.data.label
    return as_in_pipeline.write_soft_targets(
        folder / "targets", task.graph, label, own, folder / "examples", fold_teachers=of_folds, **compact
    )


def teach(task: Task, split: Split, count: int, seed: int) -> list[keras.Model]:
    """Returns `count` teachers of the settings' first kind, with seeds of their own."""
    of = task.settings.teachers[0]
    return [trained(task, split, config_of(task, of, "teacher", 1000 * seed + number)) for number in range(count)]


def quiet() -> None:
    """Leaves TensorFlow's and TFX's logs out of the output."""
    from absl import logging

    logging.set_verbosity(logging.ERROR)
    tf.get_logger().setLevel("ERROR")
