"""Parts of a pipeline, for benchmarks that leave out the DAG around them: data, soft targets, configurations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.pipeline import RunOptions
from tfx.types import artifact_utils, standard_artifacts

from stillhouse.components.soft_targets import ViewsOfExamples
from stillhouse.components.soft_targets.executor import Executor as SoftTargets
from stillhouse.components.soft_targets.executor import SoftTargetsParameters
from stillhouse.modules.settings import Settings, Training
from stillhouse.modules.training.config import TrainingConfig
from stillhouse.pipelines.dag.create import create_pipeline
from stillhouse.pipelines.dag.nodes import BEAM_OPTIONS, Dag, PipelinePaths
from stillhouse.pipelines.local.paths import local_paths


def artifact(kind: type, uri: Path, *splits: str):
    """Returns an artifact in a folder."""
    made = kind()
    made.uri = str(uri)
    if splits:
        made.split_names = artifact_utils.encode_split_names(list(splits))
    return made


def run_to_transform(settings: Settings, root: Path) -> tuple[PipelinePaths, Path]:
    """Runs the data half of a pipeline, ExampleGen to Transform, below `root`; returns its paths and the graph."""
    root.mkdir(parents=True)
    paths = local_paths(settings, root)
    LocalDagRunner().run(create_pipeline(settings, paths), run_options=RunOptions(to_nodes=["Transform"]))
    (graph,) = Path(paths.root, "Transform", "transform_graph").iterdir()
    return paths, graph


def training_config(dag: Dag, of: Training, role: str, seed: int, name: str | None = None, **more) -> TrainingConfig:
    """Returns the configuration of one training as the pipeline would make it, without checkpoints.

    Args:
      dag: knows the settings.
      of: the training.
      role: as in TrainingConfig.
      seed: in the place of that of the settings.
      name: of the training; default: its role.
      more: in the place of other parts of the configuration.
    """
    changes = {"seed": seed, "checkpoint_folder": None, **more}
    return dag.config(name or role, role, of, **changes)


def write_soft_targets(
    folder: Path,
    graph: Path,
    label: str,
    teachers: list[Path],
    examples: Path,
    transfer: bool = False,
    views: ViewsOfExamples | None = None,
    fold_teachers: Sequence[Sequence[Path]] = (),
    dtype: Literal["float32", "float16", "int8"] = "float32",
    top: int | None = None,
) -> str:
    """Runs the SoftTargets component and returns the folder of the targets.

    Args:
      folder: to write to.
      graph: the Transform's output.
      label: name of the label feature.
      teachers: folders of exported models.
      examples: folder of transformed examples with Split-train, and Split-transfer if `transfer`.
      transfer: whether to ask about the transfer examples too.
      views: the views to ask about; None: the examples as they are.
      fold_teachers: folders of exported models of each fold, one per teacher; empty: no folds.
      dtype, top: of the targets.
    """
    inputs = {
        f"teacher_{number}": [artifact(standard_artifacts.Model, teacher)]
        for number, teacher in enumerate(teachers, start=1)
    }
    by_teacher = [model for of_teacher in zip(*fold_teachers, strict=True) for model in of_teacher]
    for number, model in enumerate(by_teacher, start=1):
        inputs[f"fold_{number}"] = [artifact(standard_artifacts.Model, model)]
    inputs["examples"] = [artifact(standard_artifacts.Examples, examples, "train")]
    inputs["transform_graph"] = [artifact(standard_artifacts.TransformGraph, graph)]
    if transfer:
        inputs["transfer_examples"] = [artifact(standard_artifacts.Examples, examples, "transfer")]
    targets = artifact(standard_artifacts.Examples, folder)
    parameters = SoftTargetsParameters(
        label=label,
        head="classification",
        dtype=dtype,
        batch_size=512,
        views=views,
        top=top,
        folds=len(fold_teachers) or None,
    )
    context = SoftTargets.Context(beam_pipeline_args=list(BEAM_OPTIONS))
    SoftTargets(context).Do(inputs, {"soft_targets": [targets]}, parameters.properties())
    return targets.uri
