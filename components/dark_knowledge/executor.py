"""Writes dark_knowledge.json and the figures."""

import json
import os
from typing import Any

import tensorflow_transform as tft
from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils

from stillhouse.components.base import Parameters
from stillhouse.components.dark_knowledge.figure import similarity_figure
from stillhouse.modules.distillation.dark_knowledge import find_dark_knowledge
from stillhouse.modules.ingestion.files import ExampleFiles, example_files, split_folder
from stillhouse.modules.ingestion.soft_targets import read_soft_targets_card, view_files
from stillhouse.modules.models.export import class_names
from stillhouse.modules.settings import WeightedEnsemble

DARK_KNOWLEDGE = "dark_knowledge.json"


class DarkKnowledgeParameters(Parameters):
    """What is looked into: `ensemble` is that of the teachers."""

    label: str
    temperatures: list[float]
    ensemble: WeightedEnsemble


class Executor(base_executor.BaseExecutor):
    """One pass over the train split's examples and soft targets."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes output_dict["dark_knowledge"]."""
        parameters = DarkKnowledgeParameters.read(exec_properties)
        label = parameters.label
        transform = tft.TFTransformOutput(artifact_utils.get_single_uri(input_dict["transform_graph"]))
        targets = artifact_utils.get_single_uri(input_dict["soft_targets"])
        pattern = io_utils.all_files_pattern(artifact_utils.get_split_uri(input_dict["examples"], "train"))
        card = read_soft_targets_card(targets)
        # Of several views the first: it says as much as all of them, and an example is listed once.
        files = view_files(targets, "train", view=0) if card.views else example_files([pattern])
        dark_knowledge = find_dark_knowledge(
            ExampleFiles(files, split_folder(targets, "train")),
            card,
            transform.transformed_feature_spec(),
            label,
            parameters.temperatures,
            **parameters.ensemble.model_dump(),
            names=class_names(transform, label),
        )
        folder = artifact_utils.get_single_uri(output_dict["dark_knowledge"])
        io_utils.write_string_file(os.path.join(folder, DARK_KNOWLEDGE), json.dumps(dark_knowledge, indent=1))
        for entry in dark_knowledge["temperatures"]:
            name = f"similarity-T{entry['temperature']:g}.svg"
            io_utils.write_string_file(os.path.join(folder, name), similarity_figure(dark_knowledge["classes"], entry))
