"""Wraps the SavedModel."""

from typing import Any

import tensorflow_transform as tft
from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from stillhouse.components.base import Parameters
from stillhouse.modules.ingestion.examples import first_batch
from stillhouse.modules.ingestion.files import example_files
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.models.imported import SavedTeacher, export_saved_teacher

# So many examples tell logits from probabilities.
EXAMPLES_TO_TELL = 256


class ImportedTeacherParameters(Parameters):
    """`fingerprint` is that of the SavedModel's files, for the cache."""

    teacher: SavedTeacher
    fingerprint: str
    label: str
    head: str


class Executor(base_executor.BaseExecutor):
    """Writes the model with our signatures and a model card."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes output_dict["model"]."""
        parameters = ImportedTeacherParameters.read(exec_properties)
        label, head = parameters.label, HEADS[parameters.head]
        transform = tft.TFTransformOutput(artifact_utils.get_single_uri(input_dict["transform_graph"]))
        pattern = io_utils.all_files_pattern(artifact_utils.get_split_uri(input_dict["examples"], "train"))
        features, *_ = first_batch(
            example_files([pattern]), transform.transformed_feature_spec(), label, head, EXAMPLES_TO_TELL
        )
        export_saved_teacher(
            parameters.teacher,
            transform,
            label,
            head,
            features,
            path_utils.serving_model_dir(artifact_utils.get_single_uri(output_dict["model"])),
        )
