"""Hands the teachers to run_fn; all else is the stock Trainer's executor."""

from typing import Any

from tfx import types
from tfx.components.trainer import executor as trainer
from tfx.utils import json_utils, path_utils

from components.numbered_inputs import numbered_artifacts


class Executor(trainer.GenericExecutor):
    """Adds custom_config["teachers"], the folders of the teachers' SavedModels, and trains."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """As the stock Trainer's; the model is written to output_dict["model"]."""
        teachers = numbered_artifacts(input_dict, "teacher")
        config = json_utils.loads(exec_properties["custom_config"])
        config["teachers"] = [path_utils.serving_model_path(teacher.uri) for teacher in teachers]
        super().Do(input_dict, output_dict, exec_properties | {"custom_config": json_utils.dumps(config)})
