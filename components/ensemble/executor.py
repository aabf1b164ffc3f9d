"""Exports the ensemble."""

from typing import Any

import tensorflow_transform as tft
from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import path_utils

from stillhouse.components.base import Parameters, numbered_artifacts
from stillhouse.modules.models.export import export_ensemble
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.settings import WeightedEnsemble


class EnsembleParameters(Parameters):
    """`ensemble` is that of the teachers."""

    label: str
    head: str
    ensemble: WeightedEnsemble


class Executor(base_executor.BaseExecutor):
    """Joins the teachers' SavedModels into one."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the model to output_dict["model"]."""
        teachers = [path_utils.serving_model_path(a.uri) for a in numbered_artifacts(input_dict, "teacher")]
        transform = tft.TFTransformOutput(artifact_utils.get_single_uri(input_dict["transform_graph"]))
        path = path_utils.serving_model_dir(artifact_utils.get_single_uri(output_dict["model"]))
        card = {"name": "Ensemble", "role": "ensemble"}
        parameters = EnsembleParameters.read(exec_properties)
        head = HEADS[parameters.head]
        export_ensemble(teachers, transform, parameters.label, path, card, head, **parameters.ensemble.model_dump())
